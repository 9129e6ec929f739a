# SPDX-License-Identifier: Apache-2.0
"""What cameras do to images: exposure, noise; and which frames get lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.tone import develop

BLUR_STEPS = 5
"""Images that are averaged where a moving camera blurs."""


@dataclass(frozen=True)
class EffectSettings:
    """Imperfections; all off by default.

    Attributes:
        motion_blur: share of the frame time that the shutter is open, [0, 1].
        exposure: stops by which brightness swings to and fro.
        noise: standard deviation of a pixel in the dark, 8-bit levels.
        drops: share of frames that get lost, [0, 0.9].

    Raises:
        ConfigurationError: a value outside of its range.

    """

    motion_blur: float = 0.0
    exposure: float = 0.0
    noise: float = 0.0
    drops: float = 0.0

    def __post_init__(self) -> None:
        limits = {"motion_blur": 1.0, "exposure": 4.0, "noise": 64.0, "drops": 0.9}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ConfigurationError(f"effect {name} is {value}; it must be from 0 to {most}")


def exposure_at(settings: EffectSettings, seconds: float, seed: int) -> float:
    """Return the factor on the light at a time; 1 where the exposure does not change."""
    if settings.exposure == 0:
        return 1.0
    rng = np.random.default_rng([seed, 0xE4])
    period, phase = float(rng.uniform(3, 9)), float(rng.uniform(0, 2 * math.pi))
    return float(2 ** (settings.exposure * math.sin(2 * math.pi * seconds / period + phase)))


def photograph(light: Tensor, settings: EffectSettings, exposure: float, seed: int) -> Tensor:
    """Turn linear light [H, W, 3] into a uint8 RGB image, on the CPU."""
    image = 255 * develop(light, exposure)
    if settings.noise > 0:
        noise = np.random.default_rng([seed, 0x01]).standard_normal(image.shape, np.float32)
        # Shot noise grows with the light, and a dark pixel shows more of the sensor's own.
        strength = settings.noise * (0.6 + 0.4 * (image / 255).sqrt())
        image = image + strength * torch.from_numpy(noise).to(image.device)
    return image.round().clamp(0, 255).to(torch.uint8).cpu()


def lost(settings: EffectSettings, index: int, seed: int) -> bool:
    """Return whether a frame gets lost; the first one never does."""
    if index == 0 or settings.drops == 0:
        return False
    return bool(np.random.default_rng([seed, index, 0xD0]).random() < settings.drops)
