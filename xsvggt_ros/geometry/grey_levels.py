# SPDX-License-Identifier: Apache-2.0
"""What whole grey levels do to brightness: bands, and how they are told from a sensor's noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.registration import MEDIAN_OF_NORMAL

Array = NDArray[np.float64]
Image = NDArray[np.float32]

GREY_LEVEL = 1.0 / 255.0
"""Of full brightness."""
BLUR = 1.0
"""Standard deviation in pixels of the blur that an image has had."""
BAND_WINDOW = 9
"""Pixels over which it is measured how brightness rises."""
BESIDE = 2.0
"""Pixels squared: what takes bands away in addition to the blur, since points lie next to each
other."""
HARMONICS = (1, 2, 3, 4)
"""Of bands; they hold seven eighths of the variance of rounded brightness."""
ALIKE = 0.05
"""Grey levels per pixel by which the brightness of two colours, or of two places, may rise
differently and both still have the same bands."""
NOISE_REACHES = (1, 2, 3, 4, 5)
"""Pixels between those whose differences tell the noise: where rounded brightness repeats itself
after a few pixels, the difference over just as many does not see it."""
ROUNDED = 1.0 / 12.0 / 255.0**2
"""Variance of brightness by whole numbers."""
_SECOND_DIFFERENCE = (1, -2, 1)


def noise_of(color: NDArray[np.uint8]) -> float:
    """Return the variance of a sensor's noise in an image, in squared grey levels.

    By second differences, of which smooth patterns have none (J. Immerkaer, "Fast noise variance
    estimation", 1996), less what whole numbers themselves add. Of green, which has the least noise
    where the colours of a sensor differ.
    """
    levels = color[..., 1].astype(np.int16)
    first, middle, last = _SECOND_DIFFERENCE
    found = []
    for reach in NOISE_REACHES:
        if 2 * reach >= min(levels.shape[:2]):
            break
        above, inner, below = levels[: -2 * reach], levels[reach:-reach], levels[2 * reach :]
        down = first * above + middle * inner + last * below
        left, inner, right = down[:, : -2 * reach], down[:, reach:-reach], down[:, 2 * reach :]
        second = first * left + middle * inner + last * right
        found.append((_median_size(second) / MEDIAN_OF_NORMAL) ** 2)
    gain = sum(factor**2 for factor in _SECOND_DIFFERENCE) ** 2
    return max(min(found, default=0.0) / gain - 1.0 / 12.0, 0.0)


def _median_size(values: NDArray[np.int16]) -> float:
    """Return the median absolute value, up to 255, of what was rounded to whole numbers."""
    sizes = cv2.convertScaleAbs(values.reshape(1, -1))
    counts = cv2.calcHist([sizes], [0], None, [256], [0, 256]).ravel()
    up_to = np.cumsum(counts)
    value = int(np.searchsorted(up_to, sizes.size / 2))
    beyond = float((up_to[value] - sizes.size / 2) / counts[value])
    # Each whole number stands for half of one to both sides, zero for half of one.
    return value + 0.5 - beyond * (0.5 if value == 0 else 1.0)


def bands_of(color: Image, pixels: NDArray[np.int64], noise: float) -> tuple[Array, float]:
    """Return what bands of rounded brightness add to the brightness of pixels.

    Brightness is assumed to rise evenly around each point. The errors of rounding are then a wave
    with as many cycles per pixel as it rises by grey levels, and harmonics of that. Where these are
    near a whole number, the pixels sample a slow wave, which no smoothing takes away. Noise does
    (B. Widrow, I. Kollar, "Quantization Noise", 2008): half a grey level of it leaves nothing.

    Args:
        color: float32 [h, w, 3], blurred, brightness 0 to 1.
        pixels: int64 [n, 2], row and column.
        noise: variance of the image's noise before the blur, in squared grey levels.

    Returns:
        Standard deviations of four independent errors in each of three colours, [n, 3, 4]: one that
        colours share whose brightness rises alike, as all do in a grey image, and each one's own.
        And how much of them is the same error all over the image, from 0 to 1.

    """
    across, down = _rises(color, pixels)
    steepest = int(_squares(across, down).sum(axis=0).argmax())
    even = _evenness(across[:, steepest], down[:, steepest])
    spread = BLUR**2 + (1.0 - even) * BESIDE
    variance = np.zeros_like(across)
    for harmonic in HARMONICS:
        slow = _squares(*(harmonic * each - np.rint(harmonic * each) for each in (across, down)))
        taken_away = spread * slow + harmonic**2 * noise
        variance += 6.0 / (np.pi * harmonic) ** 2 * np.exp(-4.0 * np.pi**2 * taken_away)
    size = np.sqrt(ROUNDED * variance)
    signs, alike = _alike(across, down, steepest)
    bands = np.zeros((len(size), 3, 4))
    bands[:, :, 0] = signs * np.sqrt(alike) * size
    bands[:, [0, 1, 2], [1, 2, 3]] = np.sqrt(1.0 - alike) * size
    return bands, even


def _evenness(across: Array, down: Array) -> float:
    """Return how evenly a colour rises [n] over a whole image, from 0 to 1."""
    varied = across.var() + down.var()
    rounded = 2 * 2 / 12 / (BAND_WINDOW - 1) ** 2  # differences of two whole numbers, both ways
    return float(np.exp(-0.5 * max(varied - rounded, 0.0) / ALIKE**2))


def _rises(color: Image, pixels: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return by how many grey levels per pixel each colour rises at pixels, [n, 3] each.

    To the right, and downwards.
    """
    row, column = pixels.T
    left, right = _around(column, color.shape[1])
    above, below = _around(row, color.shape[0])
    across = (color[row, right] - color[row, left]) / (right - left)[:, None]
    down = (color[below, column] - color[above, column]) / (below - above)[:, None]
    return across / GREY_LEVEL, down / GREY_LEVEL


def _alike(across: Array, down: Array, steepest: int) -> tuple[Array, Array]:
    """Return each colour's sign and how alike the one most similar to it rises, [n, 3] each.

    The sign is -1 where a colour falls as the steepest one rises: bands still pull at the step
    alike. How alike goes from 0 to 1.
    """
    along = across * across[:, [steepest]] + down * down[:, [steepest]]
    signs = np.where(along < 0, -1.0, 1.0)
    following = [1, 2, 0]
    apart = (each - each[:, following] for each in (signs * across, signs * down))
    alike = np.exp(-0.5 / ALIKE**2 * _squares(*apart))
    return signs, np.maximum(alike, alike[:, [2, 0, 1]])


def _squares(across: Array, down: Array) -> Array:
    return across * across + down * down


def _around(places: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two ends of a window around each place within an image."""
    return np.maximum(places - BAND_WINDOW // 2, 0), np.minimum(places + BAND_WINDOW // 2, size - 1)
