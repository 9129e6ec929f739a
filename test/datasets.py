# SPDX-License-Identifier: Apache-2.0
"""Writes small sequences in the formats in which data sets lie on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

HEIGHT, WIDTH = 6, 8
COUNT = 5


def colors(count: int = COUNT) -> np.ndarray:
    """Draw images, uint8 [count, H, W, 3] RGB, each its own."""
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def depths(count: int = COUNT) -> np.ndarray:
    """Draw depths in metres, each a whole number of millimetres, one pixel of each unknown."""
    drawn = np.random.default_rng(1).integers(500, 6000, (count, HEIGHT, WIDTH)) / 1000
    drawn[:, 0, 0] = np.nan
    return drawn.astype(np.float32)


def poses(count: int = COUNT) -> np.ndarray:
    """Draw camera-to-world poses in optical axes."""
    rng = np.random.default_rng(2)
    drawn = np.tile(np.eye(4), (count, 1, 1))
    drawn[:, :3, :3] = Rotation.random(count, random_state=3).as_matrix()
    drawn[:, :3, 3] = rng.normal(size=(count, 3))
    return drawn


def write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = image[..., ::-1] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), np.ascontiguousarray(shown))


def write_depth(path: Path, depth: np.ndarray, per_metre: float, invalid: int = 0) -> None:
    raw = np.round(np.nan_to_num(depth) * per_metre).astype(np.uint16)
    raw[np.isnan(depth)] = invalid
    write_png(path, raw)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def row(numbers: np.ndarray) -> str:
    return " ".join(f"{each:.9e}" for each in np.ravel(numbers))


def table(matrix: np.ndarray) -> str:
    return "\n".join(row(line) for line in matrix) + "\n"


def tum_row(pose: np.ndarray) -> str:
    return row(np.r_[pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_quat()])


def tum(directory: Path, *, truth_rate: int = 4) -> Path:
    """TUM's tools: images at 10 Hz from second 100, depth 5 ms later, truth more often."""
    listed: dict[str, list[str]] = {"rgb": ["# color images", "# timestamp filename"], "depth": []}
    truth = ["# timestamp tx ty tz qx qy qz qw"]
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        seconds = 100 + index / 10
        for part, moment in (("rgb", seconds), ("depth", seconds + 0.005)):
            name = f"{part}/{moment:.6f}.png"
            listed[part].append(f"{moment:.6f} {name}")
            if part == "rgb":
                write_png(directory / name, color)
            else:
                write_depth(directory / name, depth, 5000)
        for step in range(truth_rate):
            shifted = pose.copy()
            shifted[:3, 3] += step
            truth.append(f"{seconds + 0.1 * step / truth_rate:.4f} {tum_row(shifted)}")
    for part, lines in listed.items():
        write_text(directory / f"{part}.txt", "\n".join(lines) + "\n")
    write_text(directory / "groundtruth.txt", "\n".join(truth) + "\n")
    return directory


def seven_scenes(scene: Path, sequence: str = "seq-01", *, registered: bool = True) -> Path:
    directory = scene / sequence
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        stem = f"frame-{index:06d}"
        write_png(directory / f"{stem}.color.png", color)
        write_depth(directory / f"{stem}.depth.png", depth + 1, 1000, invalid=65535)
        if registered:
            write_depth(directory / f"{stem}.depth.proj.png", depth, 1000)
        write_text(directory / f"{stem}.pose.txt", table(pose).replace(" ", "\t "))
    return directory


def neural_rgbd(directory: Path) -> Path:
    lines = []
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        write_png(directory / "images" / f"img{index}.png", color)
        write_depth(directory / "depth" / f"depth{index}.png", depth, 1000)
        lines.append(table(pose * [1, -1, -1, 1] if index != 3 else np.full((4, 4), np.nan)))
    write_text(directory / "poses.txt", "".join(lines))
    write_text(directory / "focal.txt", "554.2562584220408\n")
    return directory


def kitti_odometry(root: Path) -> Path:
    """Camera 2 stands 6 cm beside camera 0."""
    directory = root / "sequences" / "04"
    for index, color in enumerate(colors()):
        write_png(directory / "image_2" / f"{index:06d}.png", color)
    intrinsics = np.array([[700.0, 0, 4], [0, 700, 3], [0, 0, 1]])
    offset = np.array([0.06, 0.001, 0.002])
    lines = [f"P0: {row(np.c_[intrinsics, np.zeros(3)])}"]
    lines.append(f"P2: {row(np.c_[intrinsics, intrinsics @ offset])}")
    lines.append(f"Tr: {row(np.eye(4)[:3])}")
    write_text(directory / "calib.txt", "\n".join(lines) + "\n")
    write_text(directory / "times.txt", "".join(f"{index / 10:e}\n" for index in range(COUNT)))
    shifted = np.eye(4)
    shifted[:3, 3] = offset
    cameras0 = poses() @ shifted
    write_text(root / "poses" / "04.txt", "".join(row(p[:3]) + "\n" for p in cameras0))
    return root


def kitti_gathered(root: Path, drive: str = "2011_09_26_drive_0002_sync_02") -> Path:
    for index, (color, depth) in enumerate(zip(colors(), depths(), strict=True)):
        name = f"{index + 5:010d}.png"
        write_png(root / "image_gathered" / drive / name, color)
        write_depth(root / "groundtruth_depth_gathered" / drive / name, depth, 256)
    return root


def kitti_selection(root: Path) -> Path:
    for index, (color, depth) in enumerate(zip(colors(), depths(), strict=True)):
        drive, rest = "2011_09_26_drive_0002_sync", f"{index:010d}_image_02"
        write_png(root / "image" / f"{drive}_image_{rest}.png", color)
        write_depth(
            root / "groundtruth_depth" / f"{drive}_groundtruth_depth_{rest}.png", depth, 256
        )
        camera = np.array([[721.5, 0, 4], [0, 722.5, 3], [0, 0, 1]])
        write_text(root / "intrinsics" / f"{drive}_image_{rest}.txt", row(camera) + "\n")
    return root


def sintel(root: Path, scene: str = "alley_1") -> Path:
    tag = np.array([202021.25], "<f4").tobytes()
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        stem = f"frame_{index + 1:04d}"
        write_png(root / "training" / "final" / scene / f"{stem}.png", color)
        size = np.array([WIDTH, HEIGHT], "<i4").tobytes()
        path = root / "training" / "depth" / scene / f"{stem}.dpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tag + size + depth.astype("<f4").tobytes())
        path = root / "training" / "camdata_left" / scene / f"{stem}.cam"
        path.parent.mkdir(parents=True, exist_ok=True)
        intrinsics = np.array([[1120.0, 0, 511.5], [0, 1121, 217.5], [0, 0, 1]])
        extrinsics = np.linalg.inv(pose)[:3]
        path.write_bytes(
            tag + intrinsics.astype("<f8").tobytes() + extrinsics.astype("<f8").tobytes()
        )
    return root


def scannet(directory: Path) -> Path:
    """Depth of half the image's size, as in the data set; pose 2 is lost."""
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        path = directory / "color" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        large = np.repeat(np.repeat(color, 2, axis=0), 2, axis=1)
        assert cv2.imwrite(str(path), large[..., ::-1])
        write_depth(directory / "depth" / f"{index}.png", depth, 1000)
        lost = np.full((4, 4), -np.inf)
        write_text(directory / "pose" / f"{index}.txt", table(lost if index == 2 else pose))
    for part, scale in (("color", 2), ("depth", 1)):
        camera = np.diag([577.87 * scale, 578.73 * scale, 1, 1])
        camera[:2, 2] = np.array([4, 3]) * scale
        write_text(directory / "intrinsic" / f"intrinsic_{part}.txt", table(camera))
    return directory


def icl_nuim(directory: Path) -> Path:
    """TUM-compatible PNGs of ICL-NUIM: axes with y up, frames counted from 0, poses from 1."""
    mirror = np.diag([1.0, -1, 1, 1])
    lines = []
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        write_png(directory / "rgb" / f"{index}.png", color)
        write_depth(directory / "depth" / f"{index}.png", depth, 5000)
        if index:
            lines.append(f"{index} {tum_row(mirror @ pose @ mirror)}")
    write_text(directory / "livingRoom2n.gt.freiburg", "\n".join(lines) + "\n")
    return directory


def rgbd(directory: Path) -> Path:
    lines = []
    for index, (color, depth, pose) in enumerate(zip(colors(), depths(), poses(), strict=True)):
        write_png(directory / "color" / f"{index + 1}.png", color)
        write_depth(directory / "depth" / f"{index + 1}.png", depth, 5000)
        lines.append(tum_row(pose))
    write_text(directory / "pose.txt", "\n".join(lines) + "\n")
    return directory
