# SPDX-License-Identifier: Apache-2.0
"""A clip moves as its class says, and no single frame gives the class away."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import cv2
import numpy as np
import pytest

from uniformer_mm.synth import motion
from uniformer_mm.synth.video import KINETICS_CLASSES, SSV2_CLASSES

_FRAMES, _WIDTH, _HEIGHT = 32, 160, 128


def _clip(name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack(motion.render_clip(rng, name, _FRAMES, _WIDTH, _HEIGHT))


def _masks(clip: np.ndarray) -> np.ndarray:
    """How much each pixel is more saturated than the background ever is."""
    saturation = np.stack([cv2.cvtColor(f, cv2.COLOR_BGR2HSV)[..., 1] for f in clip])
    return np.clip(saturation / 255.0 - 0.35, 0.0, None)


def _steps(clip: np.ndarray, axis: int) -> np.ndarray:
    """Pixels per frame along an axis (2: x, 1: y), by the Fourier shift theorem.

    The first coefficient of a picture that moves by d on a torus turns by 2 pi d / size.
    """
    size = clip.shape[axis]
    wave = np.exp(2j * np.pi * np.arange(size) / size)
    coefficients = _masks(clip).sum(3 - axis) @ wave
    return np.angle(coefficients[1:] / coefficients[:-1]) * size / (2 * np.pi)


def _growth(clip: np.ndarray) -> float:
    """Log-area per frame; the median forgets the moment at which a shape starts anew."""
    return float(np.median(np.diff(np.log((_masks(clip) > 0).sum((1, 2))))))


def _turn(clip: np.ndarray) -> float:
    """Degrees per frame, clockwise as seen: the turn that best explains the next picture.

    Tries every turn about the centre of every patch of one hue that lies within the picture.
    """
    hue = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)[..., 0] for frame in clip]).astype(int)
    coloured = _masks(clip) > 0
    height, width = clip.shape[1:3]
    turns = []
    while coloured.any():
        commonest = np.bincount(hue[coloured] // 6).argmax() * 6 + 3
        mask = coloured & (np.abs((hue - commonest + 90) % 180 - 90) < 12)
        coloured &= ~mask
        # Shapes live on a torus: rolled, those at the picture's edge are whole.
        for shift in product(range(0, height, height // 4), range(0, width, width // 4)):
            rolled = (np.roll(pixels, shift, (1, 2)) for pixels in (clip, mask.astype(np.uint8)))
            found = _turns_of_patches(*rolled)
            if len(found) > len(clip) // 6:
                turns += found
                break
    return float(np.median(turns))


def _turns_of_patches(clip: np.ndarray, masks: np.ndarray) -> list[int]:
    size = clip.shape[2], clip.shape[1]
    turns = []
    for i in range(0, len(clip) - 1, 3):
        _, labels, stats, centres = cv2.connectedComponentsWithStats(masks[i])
        _, _, next_stats, next_centres = cv2.connectedComponentsWithStats(masks[i + 1])
        for patch in range(1, len(stats)):
            x, y, w, h, area = stats[patch]
            if area < 150 or min(x, y) == 0 or x + w == size[0] or y + h == size[1]:
                continue
            distances = np.linalg.norm(next_centres[1:] - centres[patch], axis=1)
            partner = 1 + int(distances.argmin()) if len(distances) else 0
            if not partner or abs(next_stats[partner][4] - area) > 0.1 * area:
                continue
            errors = {}
            alone = np.where((labels == patch)[..., None], clip[i], 0)
            for degrees in range(-12, 13, 2):
                matrix = cv2.getRotationMatrix2D(tuple(centres[patch]), -degrees, 1.0)
                matrix[:, 2] += next_centres[partner] - centres[patch]
                turned = cv2.warpAffine(alone, matrix, size).astype(int)
                inside = turned.any(2)
                errors[degrees] = np.abs(turned - clip[i + 1])[inside].mean()
            turns.append(min(errors, key=errors.get))
    return turns


def _slides(clip: np.ndarray, axis: int, sign: int = 0) -> bool:
    step, across = _steps(clip, axis).mean(), _steps(clip, 3 - axis).mean()
    return 2.0 < (sign * step if sign else abs(step)) < 3.6 and abs(across) < 0.3


_IS = {
    'moving_left': lambda clip: _slides(clip, 2, -1),
    'moving_right': lambda clip: _slides(clip, 2, 1),
    'rising': lambda clip: _slides(clip, 1, -1),
    'falling': lambda clip: _slides(clip, 1, 1),
    'drifting': lambda clip: _slides(clip, 2),
    'shaking': lambda clip: (
        abs(_steps(clip, 2).mean()) < 0.6 and np.abs(_steps(clip, 2)).mean() > 1.5
    ),
    'growing': lambda clip: _growth(clip) > 0.01,
    'shrinking': lambda clip: _growth(clip) < -0.01,
    'turning_clockwise': lambda clip: 5 < _turn(clip) < 10,
    'turning_counterclockwise': lambda clip: -10 < _turn(clip) < -5,
    'spinning': lambda clip: 5 < abs(_turn(clip)) < 10,
    'resting': lambda clip: not np.ptp(clip, axis=0).any(),
}
"""Whether a clip moves as a class says, measured from its pixels alone."""


@pytest.mark.parametrize('name', motion.MOTIONS)
def test_pixels_move_as_the_class_says(name: str) -> None:
    for seed in range(4):
        assert _IS[name](_clip(name, seed)), seed


def test_written_clips_move_as_their_lists_say(world: Path) -> None:
    for line in (world / 'sthv2' / 'sthv2_train_list_rawframes.txt').read_text().splitlines():
        clip_id, num_frames, label = line.split()
        folder = world / 'sthv2' / 'rawframes' / clip_id
        clip = [cv2.imread(str(folder / f'img_{i + 1:05d}.jpg')) for i in range(int(num_frames))]
        name = SSV2_CLASSES[int(label)]
        assert _IS[name](np.stack(clip)), (line, name)
    videos = world / 'kinetics400' / 'videos_train'
    for name in ('rising', 'falling', 'drifting', 'growing', 'shrinking'):
        for path in sorted((videos / name).iterdir()):
            capture = cv2.VideoCapture(str(path))
            clip = np.stack([capture.read()[1] for _ in range(36)])
            assert _IS[name](clip), path.name


def test_first_frames_are_equal_in_all_classes() -> None:
    for seed in range(3):
        first = {_clip(name, seed)[0].tobytes() for name in motion.MOTIONS}
        assert len(first) == 1


def test_no_frame_tells_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a frame shows of a shape is distributed alike in every class, at any time."""
    shown: dict[str, list[tuple[float, ...]]] = {}
    states: list[tuple[float, ...]] = []
    monkeypatch.setattr(
        motion, 'background', lambda rng, h, w, roughness: np.zeros((2, 2, 3), np.float32)
    )
    monkeypatch.setattr(motion, '_sprite', lambda rng: None)
    monkeypatch.setattr(
        motion,
        '_stamp',
        lambda frame, sprite, where, angle, scale: states.append(
            (where[0], where[1], angle % (2 * np.pi), scale)
        ),
    )
    for number, name in enumerate(motion.MOTIONS):
        states.clear()
        for seed in range(250):
            rng = np.random.default_rng([number, seed])  # other clips in every class
            motion.render_clip(rng, name, 24, _WIDTH, _HEIGHT)
        shown[name] = np.array(states).reshape(250, 24, 2, 4)
    limit = 2.1 * np.sqrt(2 / 500)  # Kolmogorov-Smirnov at p = 3e-4
    for frame in (12, 23):
        for attribute in range(4):
            samples = {k: np.sort(v[:, frame, :, attribute].ravel()) for k, v in shown.items()}
            for one, other in combinations(samples.values(), 2):
                points = np.concatenate([one, other])
                ranks = [np.searchsorted(s, points, 'right') / len(s) for s in (one, other)]
                assert np.abs(ranks[0] - ranks[1]).max() < limit


def test_mirrors() -> None:
    """Mirrored, each Kinetics class stays itself and each Something-Something class is another."""
    for name in KINETICS_CLASSES:
        assert _IS[name](_clip(name, 0)[:, :, ::-1].copy())
    left, right, clockwise, counterclockwise = SSV2_CLASSES
    for name, partner in ((left, right), (clockwise, counterclockwise)):
        for one, other in ((name, partner), (partner, name)):
            mirrored = _clip(one, 0)[:, :, ::-1].copy()
            assert _IS[other](mirrored) and not _IS[one](mirrored)
