# SPDX-License-Identifier: Apache-2.0
"""Around the network: from an image to its input, and from what it says of a camera to a pose.

**Before.** An image of any size is rectified, resized and cut. The rule is that of the reference's
demo loader: a fixed width, the height that keeps the aspect rounded to whole patches, and rows
beyond a square cut off evenly at top and bottom.

**After.** A predicted camera never has an infinite focal length. The network says a rotation as a
quaternion, and two opposite ones mean the same. Which of them is meant turns over where a camera
looks back at where it began, and there, for a frame or so, the network says something between both:
a short quaternion whose direction means nothing. Everywhere else it is about as long as in the
frames before.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.geometry.cameras import (
    Calibration,
    Intrinsics,
    intrinsics_from_encoding,
    world_to_camera,
)
from xsvggt_ros.geometry.rectification import Rectification, rectification
from xsvggt_ros.geometry.rigid import Matrix, interpolate, invert
from xsvggt_ros.stream.frame import (
    FrameResult,
    ImageArray,
    ImageMapping,
    IntrinsicsSource,
    PoseSource,
)

logger = logging.getLogger(__name__)

NARROWEST_VIEW = math.radians(1.0)
WIDEST_VIEW = math.radians(179.0)
ASSUMED_VIEW = math.radians(60.0)
_ASSUMED_FOCAL = (0.5 / math.tan(ASSUMED_VIEW / 2),) * 2


CalibrationUse = Literal["auto", "raw", "rectified", "ignore"]

_MOST_KEPT = 8
"""Calibrations: a rig has one for each camera."""
_MOST_SAID = 20
MOSTLY_SEEN = 0.5
"""Share of a rectified image that its source should fill."""


class Calibrator:
    """Finds for each image how to rectify it; maps are built once for a calibration.

    ``use``: ``raw`` = the images come as the lens made them, ``rectified`` = they have been
    rectified already, ``auto`` = as the calibration says, ``ignore`` = no calibration is used.
    What cannot be used is said once for each calibration.
    """

    def __init__(self, use: CalibrationUse = "auto") -> None:
        self._use = use
        self._found: dict[tuple[Calibration, int, int], Rectification | None] = {}
        self._said: set[str] = set()

    def rectification_for(
        self, calibration: Calibration | None, image: ImageArray
    ) -> Rectification | None:
        """Return how to rectify ``image`` [h, w, 3], None where its camera is not known."""
        if calibration is None or self._use == "ignore":
            return None
        height, width = image.shape[:2]
        key = calibration, width, height
        if key not in self._found:
            if len(self._found) >= _MOST_KEPT:
                del self._found[next(iter(self._found))]
            self._found[key] = self._make(*key)
        return self._found[key]

    def _make(self, calibration: Calibration, width: int, height: int) -> Rectification | None:
        if not calibration.known:
            self._log_once(
                logging.INFO, "the camera_info is uncalibrated: the network's own is used"
            )
            return None
        if self._use != "auto":
            calibration = replace(calibration, rectified=self._use == "rectified")
        try:
            found = rectification(calibration, width, height)
        except ConfigurationError as error:
            self._log_once(logging.WARNING, f"the calibration is not used: {error}")
            return None
        self._tell(calibration, found)
        return found

    def _tell(self, calibration: Calibration, found: Rectification) -> None:
        size = f"{found.intrinsics.width}x{found.intrinsics.height}"
        if found.scaled:
            self._log_once(
                logging.WARNING,
                f"the camera_info is for {calibration.width}x{calibration.height} pixels, the "
                f"images have {size}: it is scaled to them",
            )
        if found.seen is not None and found.seen.mean() < MOSTLY_SEEN:
            self._log_once(
                logging.WARNING,
                f"by the camera_info the camera sees only {found.seen.mean():.0%} of its rectified "
                "image, and the rest stays black: check focal lengths, distortion and binning",
            )
        how = "rectified here" if found.maps is not None else "used as they are"
        self._log_once(logging.INFO, f"the camera is known, and images of {size} pixels are {how}")

    def _log_once(self, level: int, text: str) -> None:
        """Log a text once: a lens that focuses has another calibration in each image."""
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            logger.log(level, text)


LARGEST_SIDE = 16384
"""Pixels; a longer side is refused as damaged input before memory is taken for it."""

TALLEST = 16
"""Times the width; a higher image would be resized to a size out of proportion, then cut."""


class PredictedView:
    """The camera as the network predicts it: never with an infinite focal length.

    Attributes:
        focal: the last good focal lengths, in image widths; None before the first.
        warned: whether a field of view that cannot be has been told.

    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.focal: tuple[float, float] | None = None
        self.warned = False

    def intrinsics(
        self, encoding: NDArray[np.float32], mapping: ImageMapping, index: int
    ) -> tuple[Intrinsics, IntrinsicsSource]:
        """Return the predicted camera, the last good one or a guess.

        Args:
            encoding: of the pose and the fields of view, [9].
            mapping: of the network's image.
            index: of the frame in its session.

        """
        width, height = mapping.width, mapping.height
        vertical, horizontal = float(encoding[7]), float(encoding[8])
        if all(NARROWEST_VIEW <= view <= WIDEST_VIEW for view in (vertical, horizontal)):
            predicted = intrinsics_from_encoding(encoding, width, height)
            self.focal = predicted.fx / width, predicted.fy / width
            return predicted, "predicted"
        source: IntrinsicsSource = "assumed" if self.focal is None else "held"
        if not self.warned:
            self.warned = True
            logger.warning(
                "the network sees %.2f by %.2f degrees in frame %d, outside %.0f..%.0f; the field "
                "of view is %s there and wherever it happens again in this session",
                math.degrees(horizontal), math.degrees(vertical), index,
                math.degrees(NARROWEST_VIEW), math.degrees(WIDEST_VIEW), source,
            )  # fmt: skip
        fx, fy = (width * focal for focal in self.focal or _ASSUMED_FOCAL)
        return Intrinsics(fx, fy, width / 2, height / 2, width, height), source


def plan(source_width: int, source_height: int, width: int, patch: int) -> ImageMapping:
    """Say how an image will be resized and cut.

    Args:
        source_width: of the image, pixels.
        source_height: of the image, pixels.
        width: of the network's input, a multiple of ``patch``; its height is at most as much.
        patch: side of a patch.

    Raises:
        ConfigurationError: a width that is no positive multiple of the patch.
        FrameError: an empty, absurdly large or absurdly narrow image.

    """
    check_width(width, patch)
    if not (0 < source_width <= LARGEST_SIDE and 0 < source_height <= LARGEST_SIDE):
        raise FrameError(
            f"image of {source_width}x{source_height} pixels; each side must be between 1 and "
            f"{LARGEST_SIDE}"
        )
    if source_height > TALLEST * source_width:
        raise FrameError(
            f"image of {source_width}x{source_height} pixels; it must not be more than "
            f"{TALLEST} times as high as wide"
        )
    patches = round(source_height * (width / source_width) / patch)
    resized = max(1, patches) * patch
    height = min(resized, width)
    return ImageMapping(
        source_width, source_height, width, height, resized, (resized - height) // 2
    )


def check_width(width: int, patch: int) -> None:
    """Raise ConfigurationError where ``width`` is no positive multiple of ``patch``."""
    if width < patch or width % patch:
        below = max(patch, width // patch * patch)
        raise ConfigurationError(
            f"input.width is {width}; it must be a positive multiple of the patch size {patch}, "
            f"such as {below} or {below + patch}"
        )


def preprocess(image: ImageArray, width: int, patch: int) -> tuple[ImageArray, ImageMapping]:
    """Return the network's image, uint8 RGB [h, w, 3], and its place in the source.

    Antialiased bicubic resampling on 8-bit values, which agrees with Pillow's to within two levels.

    Args:
        image: RGB, uint8 [h, w, 3].
        width: of the network's image, pixels.
        patch: side of a patch, pixels.

    Raises:
        FrameError: not a uint8 RGB image, or of an impossible size.

    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise FrameError(
            f"image of shape {image.shape} and dtype {image.dtype}; uint8 RGB "
            "[height, width, 3] is needed"
        )
    mapping = plan(image.shape[1], image.shape[0], width, patch)
    resized = _resize(image, mapping.resized_height, mapping.width)
    rows = slice(mapping.crop_top, mapping.crop_top + mapping.height)
    return np.array(resized[rows], order="C"), mapping  # the caller may reuse its own


def _resize(image: ImageArray, height: int, width: int) -> ImageArray:
    if image.shape[:2] == (height, width):
        return image
    whole = np.require(image, requirements=["C", "W"])  # what torch can look at in place
    planes = torch.from_numpy(whole).permute(2, 0, 1)[None]
    resized = functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def to_network(image: ImageArray, device: torch.device) -> Tensor:
    """Turn uint8 RGB [h, w, 3] into float32 [1, 1, 3, h, w] in [0, 1] on ``device``."""
    planes = torch.from_numpy(image).to(device, non_blocking=True).permute(2, 0, 1)
    return (planes.float() / 255)[None, None].contiguous()


def with_camera(result: FrameResult, camera: Rectification) -> FrameResult:
    """Return the result for a known camera; nothing is known where its image has nothing."""
    depth = result.depth
    if camera.seen is not None:
        depth = np.where(result.mapping.mask_from_source(camera.seen), depth, np.float32(np.nan))
    intrinsics = result.mapping.intrinsics_from_source(camera.intrinsics)
    predicted = result.intrinsics_source == "predicted"
    return replace(
        result,
        depth=depth,
        intrinsics=intrinsics,
        intrinsics_source="calibrated",
        focal_ratio=intrinsics.fx / result.intrinsics.fx if predicted else np.nan,
    )


SHORT = 0.5
"""Share of the usual length below which a quaternion says no rotation: two opposite ones that
weigh 3 : 1 add up to it."""
BASELINE = 30
LEAST_BASELINE = 10
"""Frames from which on a length is usual."""
MOST_HELD = 2
"""Poses in a row that are held: a camera that stays there moves on by what it is seen to do."""


@dataclass(slots=True)
class _Camera:
    """What is known of one camera of a stream: lengths of quaternions, and its newest poses."""

    lengths: deque[float] = field(default_factory=lambda: deque(maxlen=BASELINE))
    newest: deque[tuple[int, Matrix]] = field(default_factory=lambda: deque(maxlen=2))
    held: int = 0

    def expected(self, stamp: int) -> Matrix:
        """Return where the camera is if it went on as it went; where it was after one pose."""
        last_stamp, last = self.newest[-1]
        before_stamp, before = self.newest[0]
        known, ahead = last_stamp - before_stamp, stamp - last_stamp
        # A gap before says nothing of a short step now, and no gap is gone through blindly.
        share = min(max(ahead, 0) / known, 1.0) if known > 0 else 1.0
        return last @ interpolate(np.eye(4), invert(before) @ last, share)

    def leaves_open(self, length: float) -> bool:
        """Take in the length of a quaternion; return whether it says no rotation."""
        usual = median(self.lengths) if len(self.lengths) >= LEAST_BASELINE else 0.0
        self.lengths.append(length)
        self.held = self.held + 1 if length < SHORT * usual else 0
        return 0 < self.held <= MOST_HELD


class PoseTrack:
    """Turns what the network says of cameras into poses of one session."""

    def __init__(self) -> None:
        self._world_from_first: Matrix | None = None
        self._cameras: dict[str, _Camera] = defaultdict(_Camera)

    @property
    def world_from_network(self) -> Matrix:
        """Where the network's own world lies in the session's, [4, 4]."""
        return np.eye(4) if self._world_from_first is None else self._world_from_first

    def pose_of(
        self, encoding: NDArray[np.floating], stamp: int, camera: str = ""
    ) -> tuple[Matrix, PoseSource]:
        """Return a frame's camera-to-world pose [4, 4], and where it is from.

        Where the quaternion is short, the camera goes on as it went from its last frame but one to
        its last.

        Args:
            encoding: of the pose, [9], as the network gives it; finite.
            stamp: of the frame, in nanoseconds.
            camera: its name in a rig of several.

        """
        extrinsics = world_to_camera(encoding.astype(np.float64))
        if self._world_from_first is None:
            # The network only tends to put the first camera at the origin; the session's world is
            # defined by it, so the rest is taken relative to it.
            self._world_from_first = extrinsics
        pose = self._world_from_first @ invert(extrinsics)
        source: PoseSource = "predicted"
        known = self._cameras[camera]
        if known.leaves_open(float(np.linalg.norm(encoding[3:7]))):
            pose, source = known.expected(stamp), "held"
        if known.held <= MOST_HELD:  # no way is made of what was believed for want of better
            known.newest.append((stamp, pose))
        return pose, source
