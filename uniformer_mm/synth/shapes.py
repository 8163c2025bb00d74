# SPDX-License-Identifier: Apache-2.0
"""Outlines of the synthetic world's shapes, and how they are painted.

A shape is a list of closed contours in its own frame (radius 1, y down); a second contour is a
hole. Detection, classification and the clips all take their shapes from ``SHAPES``.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

_SUBPIXEL_BITS = 6


def _regular(corners: int, start: float = -np.pi / 2) -> np.ndarray:
    angles = start + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _circle() -> list[np.ndarray]:
    return [_regular(48)]


def _square() -> list[np.ndarray]:
    return [_regular(4, start=-np.pi / 4)]


def _triangle() -> list[np.ndarray]:
    return [_regular(3)]


def _star() -> list[np.ndarray]:
    points = _regular(10)
    points[1::2] *= 0.42
    return [points]


def _ring() -> list[np.ndarray]:
    return [_regular(48), 0.52 * _regular(48)]


def _cross() -> list[np.ndarray]:
    arm, width = 0.95, 0.32
    quarter = np.array([[width, -arm], [width, -width], [arm, -width]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, i).T for i in range(4)])]


def _arrow() -> list[np.ndarray]:
    return [
        np.array(
            [[0, -1], [0.85, 0], [0.36, 0], [0.36, 0.95], [-0.36, 0.95], [-0.36, 0], [-0.85, 0]]
        )
    ]


SHAPES: dict[str, Callable[[], list[np.ndarray]]] = {
    'circle': _circle,
    'square': _square,
    'triangle': _triangle,
    'star': _star,
    'ring': _ring,
    'cross': _cross,
    'arrow': _arrow,
}


def place(shape: str, centre: tuple[float, float], radius: float, angle: float) -> list[np.ndarray]:
    """Contours of a shape in image coordinates (pixel centres at integers).

    Args:
        shape: A key of ``SHAPES``.
        centre: x and y in pixels.
        radius: Circumradius in pixels.
        angle: Clockwise rotation (as seen, y down) in radians.

    Returns:
        One float ``(points, 2)`` array per contour.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, sin], [-sin, cos]])
    return [np.asarray(centre) + radius * contour @ rotation for contour in SHAPES[shape]()]


def contour_area(contours: list[np.ndarray]) -> float:
    """Area in pixels inside the first contour and outside the others (its holes)."""
    outer, *holes = [cv2.contourArea(contour.astype(np.float32)) for contour in contours]
    return outer - sum(holes)


def coverage(contours: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Share of each pixel that the contours cover (even-odd), float32 ``(height, width)``."""
    alpha = np.zeros((height, width), np.uint8)
    fixed = [np.rint(contour * (1 << _SUBPIXEL_BITS)).astype(np.int32) for contour in contours]
    cv2.fillPoly(alpha, fixed, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return alpha.astype(np.float32) / 255.0


def paint(image: np.ndarray, alpha: np.ndarray, surface: np.ndarray) -> None:
    """Blends ``surface`` over ``image`` in place.

    Args:
        image: float32 ``(height, width, 3)``.
        alpha: float32 ``(height, width)`` in 0..1.
        surface: A texture of the image's shape, or one colour ``(3,)``.
    """
    columns, rows = np.flatnonzero(alpha.any(0)), np.flatnonzero(alpha.any(1))
    if not len(columns):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    target = image[window]
    colour = np.asarray(surface, np.float32)
    target += alpha[window][..., None] * ((colour if colour.ndim == 1 else colour[window]) - target)
