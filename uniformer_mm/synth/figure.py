# SPDX-License-Identifier: Apache-2.0
"""Articulated stick figures with COCO's 17 joints.

A figure faces the viewer, so its left side is on the image's right. Left and right limbs have
two colours that are drawn for each figure: a mirrored image with swapped labels is then
another figure of the same kind, and the horizontal flip of the pose recipes stays valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import coverage, paint
from .textures import hsv_to_bgr, texture, vivid_colour

KEYPOINTS = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip',
    'left_knee', 'right_knee', 'left_ankle', 'right_ankle',
)  # fmt: skip

SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
"""Pairs of one-based joints, as in COCO's ``categories``."""

SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Per-joint constants of COCO's object keypoint similarity."""

# Lengths in units of the standing height.
_HEAD, _NECK, _TORSO, _SHOULDER, _HIP = 0.085, 0.05, 0.27, 0.115, 0.075
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.17, 0.16, 0.22, 0.21
_ARM_WIDTH, _LEG_WIDTH = 0.062, 0.078


@dataclass(frozen=True)
class Figure:
    """A pose in the image.

    Attributes:
        joints: float ``(17, 2)``, x and y in pixels, in the order of ``KEYPOINTS``.
        neck: Where the head meets the torso, ``(2,)``.
        head: Centre of the head, ``(2,)``.
        height: Standing height in pixels.
    """

    joints: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    height: float


def _rotate(vector: tuple[float, float], angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([vector[0] * cos - vector[1] * sin, vector[0] * sin + vector[1] * cos])


def random_figure(rng: np.random.Generator, height: float) -> Figure:
    """A figure of random pose with the middle of its hips at the origin."""
    tilt = rng.normal(0.0, 0.25) if rng.uniform() < 0.75 else rng.uniform(-1.3, 1.3)
    neck = _rotate((0.0, -_TORSO), tilt)
    nod = tilt + rng.uniform(-0.3, 0.3)
    head = neck + _rotate((0.0, -_NECK - _HEAD), nod)
    turn = rng.uniform(-0.25, 0.25) * _HEAD  # eyes and nose move together as the head turns
    joints = np.zeros((17, 2))
    joints[0] = head + _rotate((turn, 0.12 * _HEAD), nod)
    for side, first in ((1.0, 0), (-1.0, 1)):  # left is on the right of the image
        joints[1 + first] = head + _rotate((turn + side * 0.42 * _HEAD, -0.25 * _HEAD), nod)
        joints[3 + first] = head + _rotate((side * 0.98 * _HEAD, -0.05 * _HEAD), nod)
        shoulder = neck + _rotate((side * _SHOULDER, 0.03), tilt)
        hip = _rotate((side * _HIP, 0.0), tilt)
        # Angles from "down along the torso", positive outwards.
        arm = rng.uniform(-0.2, 2.8)
        elbow = joints[7 + first] = shoulder + _limb(_UPPER_ARM, side * arm, tilt)
        forearm = arm + rng.uniform(-2.0, 2.0)
        joints[9 + first] = elbow + _limb(_FOREARM, side * forearm, tilt)
        thigh = rng.uniform(-0.05, 1.1)
        knee = joints[13 + first] = hip + _limb(_THIGH, side * thigh, 0.4 * tilt)
        shin = thigh + rng.uniform(-1.3, 0.5)
        joints[15 + first] = knee + _limb(_SHIN, side * shin, 0.4 * tilt)
        joints[5 + first], joints[11 + first] = shoulder, hip
    return Figure(joints * height, neck * height, head * height, height)


def _limb(length: float, angle: float, tilt: float) -> np.ndarray:
    return _rotate((0.0, length), tilt - angle)


def move(figure: Figure, offset: np.ndarray) -> Figure:
    """The same figure elsewhere."""
    return Figure(figure.joints + offset, figure.neck + offset, figure.head + offset, figure.height)


def draw(
    rng: np.random.Generator, image: np.ndarray, figure: Figure
) -> tuple[np.ndarray, np.ndarray]:
    """Paints a figure over the image.

    Args:
        rng: Source of colours, textures and of which arm is in front.
        image: float32 ``(height, width, 3)``, changed in place.
        figure: Whom to paint.

    Returns:
        The figure's mask, bool ``(height, width)``, and for each of the 17 joints whether the
        figure's own body leaves it visible (joints outside the image count as hidden).
    """
    hue = rng.uniform()
    sides = (vivid_colour(rng, hue), vivid_colour(rng, hue + rng.uniform(0.3, 0.7)))
    arms = [0, 1] if rng.uniform() < 0.5 else [1, 0]
    parts: list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]] = []
    joints, size = figure.joints, figure.height
    shape = image.shape[:2]
    for side in (0, 1):
        hip, knee, ankle = joints[11 + side], joints[13 + side], joints[15 + side]
        width = _LEG_WIDTH * size
        parts.append((_capsule(shape, hip, knee, width), sides[side], (11 + side, 13 + side)))
        parts.append(
            (
                _capsule(shape, knee, ankle, 0.85 * width),
                _darker(sides[side]),
                (13 + side, 15 + side),
            )
        )
    parts.append((_torso(shape, figure), _cloth(rng, shape), (5, 6, 11, 12)))
    head = _disc(shape, figure.head, _HEAD * size)
    neck = _capsule(shape, figure.neck, figure.head, 0.06 * size)
    skin = hsv_to_bgr(rng.uniform(0.04, 0.1), rng.uniform(0.25, 0.5), rng.uniform(0.8, 0.95))
    for side in (0, 1):
        parts.append((_disc(shape, joints[3 + side], 0.25 * _HEAD * size), skin, (3 + side,)))
    parts.append((np.maximum(head, neck), skin, (0, 1, 2, 3, 4)))
    for joint in (0, 1, 2):
        dark = np.full(3, 20.0) if joint else skin * np.array([0.5, 0.5, 0.9])
        parts.append((_disc(shape, joints[joint], 0.17 * _HEAD * size), dark, (joint,)))
    for side in arms:
        shoulder, elbow, wrist = joints[5 + side], joints[7 + side], joints[9 + side]
        width = _ARM_WIDTH * size
        parts.append((_capsule(shape, shoulder, elbow, width), sides[side], (5 + side, 7 + side)))
        forearm = _capsule(shape, elbow, wrist, 0.85 * width)
        parts.append((forearm, _darker(sides[side]), (7 + side, 9 + side)))

    owner = np.full(shape, -1)
    for index, (alpha, surface, _) in enumerate(parts):
        paint(image, alpha, surface)
        owner[alpha >= 0.5] = index
    visible = np.zeros(17, bool)
    for joint, (x, y) in enumerate(np.floor(joints + 0.5).astype(int)):
        if 0 <= x < shape[1] and 0 <= y < shape[0]:
            top = owner[y, x]
            visible[joint] = top >= 0 and joint in parts[top][2]
    return owner >= 0, visible


def _darker(colour: np.ndarray) -> np.ndarray:
    return colour * 0.6


def _cloth(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    light, dark = np.full(3, 235.0), np.full(3, 60.0)
    return texture(
        'striped', *shape, (light, dark), period=rng.uniform(8.0, 14.0), angle=rng.uniform(0, np.pi)
    )


def _torso(shape: tuple[int, int], figure: Figure) -> np.ndarray:
    corners = figure.joints[[5, 6, 12, 11]]
    middle = corners.mean(0)
    return coverage([middle + 1.12 * (corners - middle)], *shape)


def _disc(shape: tuple[int, int], centre: np.ndarray, radius: float) -> np.ndarray:
    angles = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    return coverage([centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)], *shape)


def _capsule(
    shape: tuple[int, int], start: np.ndarray, end: np.ndarray, width: float
) -> np.ndarray:
    """A thick line with round ends, as coverage."""
    along = np.arctan2(*(end - start)[::-1])
    half = np.linspace(-np.pi / 2, np.pi / 2, 10)
    angles = np.concatenate([along + half, along + np.pi + half])
    centres = np.concatenate([np.tile(end, (10, 1)), np.tile(start, (10, 1))])
    outline = centres + width / 2 * np.stack([np.cos(angles), np.sin(angles)], 1)
    return coverage([outline], *shape)
