# SPDX-License-Identifier: Apache-2.0
"""RandAugment for clips: one random policy for all frames.

Source: Cubuk et al., arXiv 1909.13719, in timm's variant with magnitude noise and "increasing"
operations (policy strings such as ``rand-m7-n4-mstd0.5-inc1``), as in Sense-X/UniFormer @52a0415
``video_classification/slowfast/datasets/rand_augment.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ...checks import is_integer
from ...registry import TRANSFORMS, register
from .checks import check_flag, check_integer, check_number

MAX_MAGNITUDE = 10
SOLARIZE_ADD_BELOW = 128
# Those of Pillow's filters that its affine transforms take.
FILTERS = ('nearest', 'bilinear', 'bicubic')

Frame = Image.Image


def _signed(value: float) -> float:
    return -value if random.random() > 0.5 else value


# What a frame undergoes: (frame, value, how to resample) -> frame.


def _warp(matrix: Callable[[float, Frame], tuple], frame: Frame, value: float, how: dict) -> Frame:
    coefficients = matrix(value, frame)
    return frame.transform(frame.size, Image.Transform.AFFINE, coefficients, **how)


def _enhance(enhancer: type, frame: Frame, factor: float, _how: dict) -> Frame:
    return enhancer(frame).enhance(factor)


def _solarize_add(frame: Frame, add: int, _how: dict) -> Frame:
    table = [min(255, i + add) if i < SOLARIZE_ADD_BELOW else i for i in range(256)]
    return frame.point(table * len(frame.getbands()))


_FRAME_OPS: dict[str, Callable[[Frame, float, dict], Frame]] = {
    'AutoContrast': lambda frame, _value, _how: ImageOps.autocontrast(frame),
    'Equalize': lambda frame, _value, _how: ImageOps.equalize(frame),
    'Invert': lambda frame, _value, _how: ImageOps.invert(frame),
    'Rotate': lambda frame, degrees, how: frame.rotate(degrees, **how),
    'Posterize': lambda frame, bits, _how: frame if bits >= 8 else ImageOps.posterize(frame, bits),
    'Solarize': lambda frame, threshold, _how: ImageOps.solarize(frame, threshold),
    'SolarizeAdd': _solarize_add,
    'Color': partial(_enhance, ImageEnhance.Color),
    'Contrast': partial(_enhance, ImageEnhance.Contrast),
    'Brightness': partial(_enhance, ImageEnhance.Brightness),
    'Sharpness': partial(_enhance, ImageEnhance.Sharpness),
    'ShearX': partial(_warp, lambda v, _frame: (1, v, 0, 0, 1, 0)),
    'ShearY': partial(_warp, lambda v, _frame: (1, 0, 0, v, 1, 0)),
    'TranslateX': partial(_warp, lambda v, frame: (1, 0, v * frame.width, 0, 1, 0)),
    'TranslateY': partial(_warp, lambda v, frame: (1, 0, 0, 0, 1, v * frame.height)),
}

# How strong: strength in [0, 1] -> value. Signs are drawn here, once for the clip.
_COMMON_VALUES: dict[str, Callable[[float], float]] = {
    'AutoContrast': lambda _s: 0,
    'Equalize': lambda _s: 0,
    'Invert': lambda _s: 0,
    'Rotate': lambda s: _signed(s * 30),
    'SolarizeAdd': lambda s: int(s * 110),
    'ShearX': lambda s: _signed(s * 0.3),
    'ShearY': lambda s: _signed(s * 0.3),
    'TranslateX': lambda s: _signed(s * 0.45),
    'TranslateY': lambda s: _signed(s * 0.45),
}
_ENHANCERS = ('Color', 'Contrast', 'Brightness', 'Sharpness')

# The op set of ``inc1`` policies: a larger magnitude always changes the frame more.
INCREASING_VALUES = _COMMON_VALUES | {
    'Posterize': lambda s: 4 - int(s * 4),
    'Solarize': lambda s: 256 - int(s * 256),
    **dict.fromkeys(_ENHANCERS, lambda s: 1 + _signed(s * 0.9)),
}
# The op set of policies without ``inc``.
PLAIN_VALUES = _COMMON_VALUES | {
    'Posterize': lambda s: int(s * 4),
    'Solarize': lambda s: int(s * 256),
    **dict.fromkeys(_ENHANCERS, lambda s: s * 1.8 + 0.1),
}


@register(TRANSFORMS)
class ClipRandAugment:
    """Random operations on full-size uint8 frames, the same with the same value on every frame.

    Each of ``num_ops`` operations is drawn from the set with replacement, takes place with
    probability ``prob``, and has a magnitude drawn from ``N(magnitude, magnitude_std)``, clipped
    to 0..10. The defaults are the policy ``rand-m7-n4-mstd0.5-inc1``.

    Args:
        num_ops: Operations drawn for each clip.
        magnitude: Mean magnitude, 0 to 10.
        magnitude_std: Standard deviation of the magnitude.
        increasing: Use the op set of ``inc1``.
        prob: Probability that a drawn operation takes place.
        fill: Value of the pixels that a geometric operation uncovers, for each channel.
        interpolation: Pillow's resampling filter for geometric operations: ``'nearest'``,
            ``'bilinear'`` or ``'bicubic'``.

    Raises:
        ValueError: Unknown interpolation, a number out of range; frames that are not
            ``(H, W, 3)`` uint8.
    """

    def __init__(
        self,
        num_ops: int = 4,
        magnitude: float = 7,
        magnitude_std: float = 0.5,
        increasing: bool = True,
        prob: float = 0.5,
        fill: Sequence[int] = (128, 128, 128),
        interpolation: str = 'bicubic',
    ) -> None:
        if interpolation not in FILTERS:
            raise ValueError(
                f'ClipRandAugment: interpolation={interpolation!r} is not known; use one of '
                f'{FILTERS}.'
            )
        colour = tuple(fill) if isinstance(fill, Sequence) else ()
        if len(colour) != 3 or any(not is_integer(v) or not 0 <= v <= 255 for v in colour):
            raise ValueError(
                f'ClipRandAugment: fill={fill!r} must be three integers from 0 to 255, one for '
                'each channel.'
            )
        self.num_ops = check_integer(self, 'num_ops', num_ops, least=0)
        self.magnitude = check_number(self, 'magnitude', magnitude, MAX_MAGNITUDE)
        self.magnitude_std = check_number(self, 'magnitude_std', magnitude_std)
        self.increasing = check_flag(self, 'increasing', increasing)
        self.prob = check_number(self, 'prob', prob, 1)
        self.interpolation = interpolation
        self.how = {
            'resample': Image.Resampling[interpolation.upper()],
            'fillcolor': colour,
        }

    def random_policy(self) -> list[tuple[str, float]]:
        """The operations that take place on one clip, with their values, in order."""
        values = INCREASING_VALUES if self.increasing else PLAIN_VALUES
        policy = []
        for name in np.random.choice(list(_FRAME_OPS), self.num_ops).tolist():
            if random.random() > self.prob:
                continue
            magnitude = self.magnitude
            if self.magnitude_std > 0:
                magnitude = random.gauss(magnitude, self.magnitude_std)
            strength = min(MAX_MAGNITUDE, max(0, magnitude)) / MAX_MAGNITUDE
            policy.append((name, values[name](strength)))
        return policy

    def apply(self, frame: np.ndarray, policy: list[tuple[str, float]]) -> np.ndarray:
        """Apply a policy to one ``(H, W, 3)`` uint8 frame."""
        image = Image.fromarray(frame)
        for name, value in policy:
            image = _FRAME_OPS[name](image, value, self.how)
        return np.asarray(image)

    def __call__(self, results: dict) -> dict:
        """Augment ``imgs``."""
        frame = results['imgs'][0]
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f'ClipRandAugment: the frames are {frame.dtype} of shape {frame.shape}, but must '
                'be uint8 (H, W, 3); put it right after decoding.'
            )
        policy = self.random_policy()
        if policy:
            results['imgs'] = [self.apply(frame, policy) for frame in results['imgs']]
        return results

    def __repr__(self) -> str:
        return (
            f'ClipRandAugment(num_ops={self.num_ops}, magnitude={self.magnitude}, '
            f'magnitude_std={self.magnitude_std}, increasing={self.increasing}, '
            f'prob={self.prob}, interpolation={self.interpolation!r})'
        )
