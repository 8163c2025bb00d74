# SPDX-License-Identifier: Apache-2.0
"""Clips of moving textured shapes whose class is the motion.

Nothing in a single frame tells the class. Whatever a frame shows (place, size, orientation,
texture of each shape) has the same distribution in every class and at every time: shapes live
on a torus (they leave on one side and enter on the other) at a uniform place, at a uniform
angle, and their size is log-uniform. A class only says how these change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .shapes import coverage, place
from .textures import background, random_texture, to_uint8

_SHAPES = ('square', 'triangle', 'star', 'cross', 'arrow')
"""Shapes whose rotation is visible."""

_SPRITE = 96
"""Side of a sprite in pixels; its shape has a radius of ``_SPRITE_RADIUS``."""

_SPRITE_RADIUS = 44.0

_LOG_SCALE = (np.log(0.12), np.log(0.38))


@dataclass(frozen=True)
class State:
    """Where a shape is over time; each field is float ``(frames,)``.

    Attributes:
        x: Horizontal place in pixels, to be taken modulo the width.
        y: Vertical place in pixels, to be taken modulo the height.
        angle: Clockwise rotation in radians.
        scale: Radius in units of the image's shorter side.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Pace:
    """How fast a clip is; drawn alike in all classes.

    Attributes:
        speed: Pixels per frame.
        turn: Radians per frame.
        growth: Log-scale over the whole clip.
        swing: Amplitude in pixels and period in frames of an oscillation.
        sign: -1 or 1, for the classes that have no direction of their own.
    """

    speed: float
    turn: float
    growth: float
    swing: tuple[float, float]
    sign: int


Motion = Callable[[State, np.ndarray, Pace], State]
"""``(state, t, pace) -> state``: adds a motion to a resting shape; ``t`` counts frames."""


def _slide(dx: int, dy: int) -> Motion:
    def motion(state: State, t: np.ndarray, pace: Pace) -> State:
        x, y = state.x + dx * pace.speed * t, state.y + dy * pace.speed * t
        return State(x, y, state.angle, state.scale)

    return motion


def _drift(state: State, t: np.ndarray, pace: Pace) -> State:
    return _slide(pace.sign, 0)(state, t, pace)


def _shake(state: State, t: np.ndarray, pace: Pace) -> State:
    amplitude, period = pace.swing
    x = state.x + amplitude * np.sin(2 * np.pi * t / period)
    return State(x, state.y, state.angle, state.scale)


def _turn(direction: int) -> Motion:
    def motion(state: State, t: np.ndarray, pace: Pace) -> State:
        return State(state.x, state.y, state.angle + direction * pace.turn * t, state.scale)

    return motion


def _spin(state: State, t: np.ndarray, pace: Pace) -> State:
    return _turn(pace.sign)(state, t, pace)


def _grow(direction: int) -> Motion:
    def motion(state: State, t: np.ndarray, pace: Pace) -> State:
        # Wraps around like the place does: uniform at every time, so it says nothing by itself.
        low, high = _LOG_SCALE
        log_scale = np.log(state.scale) + direction * pace.growth * t / len(t)
        wrapped = low + (log_scale - low) % (high - low)
        return State(state.x, state.y, state.angle, np.exp(wrapped))

    return motion


def _rest(state: State, t: np.ndarray, pace: Pace) -> State:
    return state


MOTIONS: dict[str, Motion] = {
    'moving_left': _slide(-1, 0),
    'moving_right': _slide(1, 0),
    'rising': _slide(0, -1),
    'falling': _slide(0, 1),
    'drifting': _drift,
    'shaking': _shake,
    'growing': _grow(1),
    'shrinking': _grow(-1),
    'turning_clockwise': _turn(1),
    'turning_counterclockwise': _turn(-1),
    'spinning': _spin,
    'resting': _rest,
}
"""``drifting`` and ``spinning`` go either way, so a mirrored clip keeps its class."""


def render_clip(
    rng: np.random.Generator, motion: str, frames: int, width: int, height: int
) -> list[np.ndarray]:
    """Renders a clip.

    Args:
        rng: Source of everything but the motion; the same stream renders the same shapes.
        motion: A key of ``MOTIONS``.
        frames: Number of frames.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        uint8 BGR frames ``(height, width, 3)``.
    """
    # Smooth: what is to be learnt moves, and a rough backdrop is easier to learn by heart.
    backdrop = background(rng, height, width, roughness=0.25)
    side = min(width, height)
    pace = Pace(
        speed=rng.uniform(0.018, 0.026) * side,
        turn=np.deg2rad(rng.uniform(6.0, 9.0)),
        growth=rng.uniform(0.75, 0.9),
        swing=(rng.uniform(0.08, 0.11) * side, rng.uniform(14.0, 18.0)),
        sign=1 if rng.uniform() < 0.5 else -1,
    )
    actors = [(_sprite(rng), _resting(rng, frames, width, height)) for _ in range(2)]
    t = np.arange(frames, dtype=np.float64)
    actors = [(sprite, MOTIONS[motion](state, t, pace)) for sprite, state in actors]
    clip = []
    for i in range(frames):
        frame = backdrop.copy()
        for sprite, state in actors:
            where = (state.x[i] % width, state.y[i] % height)
            _stamp(frame, sprite, where, state.angle[i], state.scale[i] * side)
        clip.append(to_uint8(frame))
    return clip


def _resting(rng: np.random.Generator, frames: int, width: int, height: int) -> State:
    x, y = rng.uniform(0.0, width), rng.uniform(0.0, height)
    angle, log_scale = rng.uniform(0.0, 2 * np.pi), rng.uniform(*_LOG_SCALE)
    return State(*(np.full(frames, value) for value in (x, y, angle, np.exp(log_scale))))


def _sprite(rng: np.random.Generator) -> np.ndarray:
    """A shape with its texture: float32 ``(_SPRITE, _SPRITE, 4)``, colour times alpha, alpha."""
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    middle = (_SPRITE - 1) / 2
    alpha = coverage(place(shape, (middle, middle), _SPRITE_RADIUS, 0.0), _SPRITE, _SPRITE)
    # Coarse: a fine pattern that moves by half its period between two sampled frames seems to go
    # the other way. Recipes sample every fourth frame, in which a shape moves by half its radius.
    surface = random_texture(rng, _SPRITE, _SPRITE, period=(48.0, 72.0))
    return np.dstack([surface * alpha[..., None], alpha]).astype(np.float32)


def _stamp(
    frame: np.ndarray, sprite: np.ndarray, where: tuple[float, float], angle: float, radius: float
) -> None:
    """Paints a sprite on the torus: wherever it sticks out, it comes in on the other side."""
    height, width = frame.shape[:2]
    zoom = radius / _SPRITE_RADIUS
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    middle = (_SPRITE - 1) / 2
    reach = radius + 1.0
    for x in _images(where[0], width, reach):
        for y in _images(where[1], height, reach):
            left, right = max(0, int(x - reach)), min(width, int(x + reach) + 2)
            top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 2)
            shift = (
                x - left - cos * middle + sin * middle,
                y - top - sin * middle - cos * middle,
            )
            matrix = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
            layer = cv2.warpAffine(sprite, matrix, (right - left, bottom - top))
            window = frame[top:bottom, left:right]
            window *= 1.0 - layer[..., 3:]
            window += layer[..., :3]


def _images(place: float, period: float, reach: float) -> list[float]:
    """Copies of a place on a circle from which something of that reach is seen in [0, period)."""
    return [p for p in (place - period, place, place + period) if -reach < p < period + reach]
