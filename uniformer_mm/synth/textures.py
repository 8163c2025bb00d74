# SPDX-License-Identifier: Apache-2.0
"""Colours, surface textures and backgrounds of the synthetic world.

Objects are saturated, backgrounds are not, so that a small network sees the one before the other.
Every function draws from the generator it is given and from nothing else.
"""

from __future__ import annotations

import cv2
import numpy as np

TEXTURES = ('plain', 'striped', 'checkered', 'dotted')


def hsv_to_bgr(hue: float, saturation: float, value: float) -> np.ndarray:
    """A BGR colour, float32 ``(3,)`` in 0..255, of hue in turns and the others in 0..1."""
    pixel_hsv = np.array([[[hue % 1.0 * 360.0, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel_hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255.0


def vivid_colour(rng: np.random.Generator, hue: float | None = None) -> np.ndarray:
    """A saturated, bright BGR colour; of random hue if none is given (in turns)."""
    if hue is None:
        hue = rng.uniform()
    return hsv_to_bgr(hue, rng.uniform(0.7, 1.0), rng.uniform(0.75, 1.0))


def texture(
    kind: str,
    height: int,
    width: int,
    colours: tuple[np.ndarray, np.ndarray],
    period: float = 12.0,
    angle: float = 0.0,
    phase: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """A surface of two colours.

    Args:
        kind: One of ``TEXTURES``.
        height: Height in pixels.
        width: Width in pixels.
        colours: Ground and figure colour, BGR in 0..255.
        period: Distance between repetitions, in pixels.
        angle: Direction of the pattern, in radians.
        phase: Shift of the pattern along both directions, in periods.

    Returns:
        float32 ``(height, width, 3)``, BGR in 0..255.
    """
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    u_HW = (x_HW * cos + y_HW * sin) / period + phase[0]
    v_HW = (y_HW * cos - x_HW * sin) / period + phase[1]
    if kind == 'plain':
        # A slow gradient: a plain surface still has an orientation, so its rotation is visible.
        share_HW = 0.5 + 0.5 * np.sin(u_HW * 0.7)
        share_HW *= 0.35
    elif kind == 'striped':
        share_HW = _soft_step(np.sin(2 * np.pi * u_HW))
    elif kind == 'checkered':
        share_HW = _soft_step(np.sin(np.pi * u_HW) * np.sin(np.pi * v_HW))
    elif kind == 'dotted':
        distance_HW = np.hypot(u_HW % 1.0 - 0.5, v_HW % 1.0 - 0.5)
        share_HW = _soft_step(0.3 - distance_HW)
    else:
        raise AssertionError(f'no texture {kind!r} in {TEXTURES}')
    return colours[0] + share_HW[..., None] * (colours[1] - colours[0])


def _soft_step(x: np.ndarray) -> np.ndarray:
    """0 below zero, 1 above, with a short ramp between so that edges do not alias."""
    return np.clip(0.5 + 4.0 * x, 0.0, 1.0)


def random_texture(
    rng: np.random.Generator,
    height: int,
    width: int,
    kind: str | None = None,
    period: tuple[float, float] = (10.0, 16.0),
    hue: float | None = None,
) -> np.ndarray:
    """A vivid surface with its own darker or lighter figure colour (see ``texture``).

    ``hue`` (in turns) is met within 0.05; None draws any.
    """
    if kind is None:
        kind = TEXTURES[rng.integers(len(TEXTURES))]
    ground = vivid_colour(rng, None if hue is None else hue + rng.uniform(-0.05, 0.05))
    figure = ground * 0.35 if rng.uniform() < 0.5 else 255.0 - (255.0 - ground) * 0.3
    return texture(
        kind,
        height,
        width,
        (ground, figure),
        period=rng.uniform(*period),
        angle=rng.uniform(0.0, np.pi),
        phase=(rng.uniform(), rng.uniform()),
    )


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Noise in about -1..1 that varies over ``cell`` pixels, float32 ``(height, width)``."""
    rows, columns = height // cell + 2, width // cell + 2
    coarse = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def background(
    rng: np.random.Generator, height: int, width: int, roughness: float = 1.0
) -> np.ndarray:
    """A greyish surface: a gradient, clouds and fine grain, float32 ``(height, width, 3)``."""
    ends = [
        hsv_to_bgr(rng.uniform(), rng.uniform(0.0, 0.22), rng.uniform(0.3, 0.7)) for _ in range(2)
    ]
    angle = rng.uniform(0.0, 2 * np.pi)
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
    along_HW = (x_HW / width - 0.5) * np.cos(angle) + (y_HW / height - 0.5) * np.sin(angle) + 0.5
    image = ends[0] + np.clip(along_HW, 0.0, 1.0)[..., None] * (ends[1] - ends[0])
    clouds_HW = smooth_noise(rng, height, width, 24) * 16.0
    clouds_HW += smooth_noise(rng, height, width, 5) * 6.0
    return (image + roughness * clouds_HW[..., None]).astype(np.float32)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Rounds and clips a float image to uint8."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
