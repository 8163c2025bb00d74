# SPDX-License-Identifier: Apache-2.0
"""The official trainings as numbers and formulas, written down apart from the configs.

Sources: run scripts, yaml files and configs of Sense-X/UniFormer @52a0415, which win over its
READMEs; Westlake-AI/openmixup @37e1372 for ``om/``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

Rate = Callable[[int], float]


@dataclass(frozen=True)
class Training:
    """What a config must train with.

    Attributes:
        batch: Samples of an update, on all GPUs.
        lr: Learning rate at its height.
        weight_decay: Weight decay of the parameters that decay.
        free: Which parameters do not decay: ``'flat'`` (one-dimensional), ``'flat, cls_token'``,
            ``'norm'`` (by name), ``'none'``, ``'openmixup'`` or ``'openmixup, gamma'``.
        drop_path: Stochastic depth of the last block.
        length: Epochs, or iterations of ADE20K.
        rate: Official rate at an iteration, given the iterations of an epoch.
        half: Whether it trains in fp16.
        clip: Largest norm of the gradient, if clipped.
    """

    batch: int
    lr: float
    weight_decay: float
    free: str
    drop_path: float
    length: int
    rate: Callable[[int, int], float]
    half: bool
    clip: float | None = None


def _timm(lr: float, warmup: int, epochs: int) -> Callable[[int, int], float]:
    """Per epoch, from the index of the epoch that has finished."""

    def rate(iteration: int, per_epoch: int) -> float:
        t = max(iteration // per_epoch - 1, 0)
        if t < warmup:
            return 1e-6 + t * (lr - 1e-6) / warmup
        return 1e-5 + 0.5 * (lr - 1e-5) * (1 + math.cos(math.pi * t / epochs))

    return rate


def _mmcv_warmup(iteration: int, length: int, ratio: float) -> float:
    """Factor of mmcv 1.x's linear warm-up, which multiplies whatever schedule runs."""
    return 1 - (1 - min(iteration / length, 1)) * (1 - ratio)


def _openmixup(lr: float, warmup: int, epochs: int) -> Callable[[int, int], float]:
    """mmcv 1.x: cosine per iteration to 1e-5, times a linear warm-up from 1e-6 of it."""

    def rate(iteration: int, per_epoch: int) -> float:
        cosine = (1 + math.cos(math.pi * iteration / (epochs * per_epoch))) / 2
        warm = _mmcv_warmup(iteration, warmup * per_epoch, 1e-6)
        return (1e-5 + (lr - 1e-5) * cosine) * warm

    return rate


def _steps(lr: float, steps: tuple[int, int]) -> Callable[[int, int], float]:
    """mmcv 1.x: a tenth from each of the epochs on; warm-up over 500 iterations from 0.001."""

    def rate(iteration: int, per_epoch: int) -> float:
        drops = sum(iteration // per_epoch >= step for step in steps)
        return lr * 0.1**drops * _mmcv_warmup(iteration, 500, 0.001)

    return rate


def _fpn(iteration: int, _: int) -> float:
    cosine = (1 + math.cos(math.pi * iteration / 80_000)) / 2
    return 2e-4 * (1e-8 + (1 - 1e-8) * cosine) * _mmcv_warmup(iteration, 1000, 0.1)


def _upernet(iteration: int, _: int) -> float:
    return 6e-5 * (1 - iteration / 160_000) * _mmcv_warmup(iteration, 1500, 1e-6)


def _slowfast(lr: float, warmup: int, epochs: int, nodes: int = 1) -> Callable[[int, int], float]:
    """Per iteration: linear from 1e-6, then a cosine from the end of the warm-up to 1e-6."""
    low = nodes * 1e-6

    def rate(iteration: int, per_epoch: int) -> float:
        epoch = iteration / per_epoch
        if epoch < warmup:
            return low + (lr - low) * epoch / warmup
        phase = math.pi * (epoch - warmup) / (epochs - warmup)
        return low + (lr - low) * (math.cos(phase) + 1) / 2

    return rate


def _image(lr: float, drop_path: float) -> Training:
    return Training(1024, lr, 0.05, 'flat', drop_path, 300, _timm(lr, 5, 300), True)


def _light_image(lr: float, weight_decay: float, drop_path: float) -> Training:
    rate = _timm(lr, 30, 600)
    return Training(4096, lr, weight_decay, 'flat, cls_token', drop_path, 600, rate, False)


def _mixup(warmup: int, half: bool, clip: float | None) -> Training:
    rate = _openmixup(1e-3, warmup, 300)
    free = 'openmixup, gamma' if half else 'openmixup'
    return Training(1024, 1e-3, 0.05, free, 0.1, 300, rate, half, clip)


def _coco(epochs: int, drop_path: float, half: bool = True) -> Training:
    steps = {12: (8, 11), 36: (27, 33)}[epochs]
    return Training(16, 1e-4, 0.05, 'norm', drop_path, epochs, _steps(1e-4, steps), half)


def _semantic_fpn(drop_path: float) -> Training:
    return Training(32, 2e-4, 1e-4, 'none', drop_path, 80_000, _fpn, False)


def _upernet_head(drop_path: float) -> Training:
    return Training(16, 6e-5, 0.01, 'norm', drop_path, 160_000, _upernet, False)


def _pose(batch: int, lr: float, drop_path: float) -> Training:
    return Training(batch, lr, 0.01, 'none', drop_path, 210, _steps(lr, (170, 200)), True)


def _clips(
    batch: int, lr: float, epochs: int, warmup: int, drop_path: float, nodes: int = 1
) -> Training:
    rate = _slowfast(lr, warmup, epochs, nodes)
    return Training(batch, lr, 0.05, 'flat', drop_path, epochs, rate, True, 20)


def _light_clips(batch: int, lr: float, drop_path: float, weight_decay: float) -> Training:
    return replace(_clips(batch, lr, 110, 10, drop_path), weight_decay=weight_decay)


TRAININGS = {
    **{f'cls/xxs_{size}': _light_image(3.2e-3, 0.1, 0.0) for size in (128, 160, 192, 224)},
    **{f'cls/xs_{size}': _light_image(4e-3, 0.05, 0.1) for size in (192, 224)},
    'cls/s': _image(1e-3, 0.1),
    'cls/s_plus': _image(1e-3, 0.1),
    'cls/s_plus_dim64': _image(1e-3, 0.1),
    'cls/b': _image(8e-4, 0.3),
    'cls/b_ls': _image(8e-4, 0.3),
    'om/t': _mixup(5, False, 5.0),
    'om/s': _mixup(20, True, None),
    'det/mask_rcnn_xxs_1x': _coco(12, 0.0, half=False),
    'det/mask_rcnn_xs_1x': _coco(12, 0.15, half=False),
    'det/mask_rcnn_s_h14_1x': _coco(12, 0.2),
    'det/mask_rcnn_b_h14_1x': _coco(12, 0.3),
    'det/mask_rcnn_s_h14_3x_ms': _coco(36, 0.1),
    'det/mask_rcnn_b_h14_3x_ms': _coco(36, 0.3),
    'det/cascade_s_h14_3x_ms': _coco(36, 0.2),
    'det/cascade_b_h14_3x_ms': _coco(36, 0.4),
    'seg/fpn_xxs': _semantic_fpn(0.0),
    'seg/fpn_xs': _semantic_fpn(0.1),
    'seg/fpn_s_h14': _semantic_fpn(0.1),
    'seg/fpn_b_h14': _semantic_fpn(0.2),
    'seg/fpn_s_g': _semantic_fpn(0.1),
    'seg/fpn_b_g': _semantic_fpn(0.2),
    'seg/upernet_s_h14': _upernet_head(0.25),
    'seg/upernet_b_h14': _upernet_head(0.4),
    'seg/upernet_s_g': _upernet_head(0.25),
    'seg/upernet_b_g': _upernet_head(0.4),
    'pose/s_256x192': _pose(1024, 2e-3, 0.2),
    'pose/b_256x192': _pose(1024, 2e-3, 0.4),
    'pose/s_384x288': _pose(1024, 2e-3, 0.2),
    'pose/b_384x288': _pose(256, 5e-4, 0.5),
    'pose/s_448x320': _pose(512, 1e-3, 0.2),
    'pose/b_448x320': _pose(256, 5e-4, 0.55),
    'vid/k400_xxs_4x128': _light_clips(256, 4e-4, 0.05, 0.1),
    'vid/k400_xxs_4x160': _light_clips(256, 4e-4, 0.05, 0.1),
    'vid/k400_xxs_8x128': _light_clips(256, 4e-4, 0.05, 0.1),
    'vid/k400_xxs_8x160': _light_clips(256, 4e-4, 0.05, 0.1),
    'vid/k400_xxs_16x128': _light_clips(256, 8e-4, 0.05, 0.1),
    'vid/k400_xxs_16x160': _light_clips(256, 8e-4, 0.05, 0.1),
    'vid/k400_xxs_32x160': _light_clips(256, 8e-4, 0.05, 0.1),
    'vid/k400_xs_32x192': _light_clips(128, 4e-4, 0.1, 0.05),
    'vid/k400_s_8x8': _clips(128, 4e-4, 100, 10, 0.1),
    'vid/k400_s_16x4': _clips(32, 1e-4, 110, 10, 0.1),
    'vid/k400_s_16x8': _clips(32, 1e-4, 110, 10, 0.1),
    'vid/k400_s_32x4': _clips(32, 1e-4, 110, 10, 0.1),
    'vid/k400_b_8x8': _clips(64, 2e-4, 100, 10, 0.3),
    'vid/k400_b_16x4': _clips(40, 1.25e-4, 110, 10, 0.3),
    'vid/k400_b_16x8': _clips(40, 1.25e-4, 110, 10, 0.3),
    'vid/k400_b_32x4': _clips(32, 1e-4, 110, 10, 0.3),
    'vid/k600_s_16x4': _clips(96, 3e-4, 110, 10, 0.1),
    'vid/k600_s_16x8': _clips(32, 1e-4, 110, 10, 0.1),
    'vid/k600_b_16x4': _clips(40, 1.25e-4, 110, 10, 0.3),
    'vid/k600_b_16x8': _clips(32, 1.25e-4, 110, 10, 0.3),
    'vid/k600_b_32x4': _clips(128, 4e-4, 110, 10, 0.3, nodes=4),
    'vid/ssv1_s16_k400': _clips(32, 2e-4, 60, 5, 0.2),
    'vid/ssv1_s16_k600': _clips(32, 2e-4, 60, 5, 0.2),
    'vid/ssv1_s32_k400': _clips(32, 2e-4, 60, 5, 0.2),
    'vid/ssv1_s32_k600': _clips(32, 2e-4, 60, 5, 0.3),
    'vid/ssv1_b16_k400': _clips(40, 2.5e-4, 60, 5, 0.6),
    'vid/ssv1_b16_k600': _clips(40, 2.5e-4, 60, 5, 0.5),
    'vid/ssv1_b32_k400': _clips(32, 2e-4, 60, 5, 0.6),
    'vid/ssv1_b32_k600': _clips(32, 2e-4, 60, 5, 0.6),
    'vid/ssv2_s16_k400': _clips(32, 2e-4, 50, 5, 0.3),
    'vid/ssv2_s16_k600': _clips(32, 2e-4, 50, 5, 0.3),
    'vid/ssv2_s32_k400': _clips(32, 2e-4, 50, 5, 0.3),
    'vid/ssv2_s32_k600': _clips(32, 2e-4, 50, 5, 0.3),
    'vid/ssv2_b16_k400': _clips(40, 2.5e-4, 50, 5, 0.4),
    'vid/ssv2_b16_k600': _clips(40, 2.5e-4, 50, 5, 0.5),
    'vid/ssv2_b32_k400': _clips(32, 2e-4, 50, 5, 0.5),
    'vid/ssv2_b32_k600': _clips(32, 2e-4, 50, 5, 0.5),
    'vid/ucf101_s_16x4': _clips(128, 5e-5, 25, 5, 0.2),
    'vid/hmdb51_s_16x4': _clips(128, 5e-5, 25, 5, 0.2),
}
"""The trainings by the row that they belong to."""

PRETRAINED = {
    **dict.fromkeys(('det', 'seg', 'pose'), '{arch}_in1k'),
    **dict.fromkeys(('k400', 'k600'), '{arch}_in1k'),
    **dict.fromkeys(('ssv1', 'ssv2', 'ucf101', 'hmdb51'), '{arch}_{source}_16x4'),
}
"""Weights that a training begins with."""


def pretrained(row_id: str, arch: str) -> str | None:
    """Zoo name of the weights that a training begins with, if any."""
    family, _, rest = row_id.partition('/')
    key = rest.partition('_')[0] if family == 'vid' else family
    source = 'k600' if row_id.endswith('_k600') else 'k400'
    if arch in ('xxs', 'xs') and family != 'cls':
        # Images of the clips' size; detectors and segmentors begin with the largest.
        return f'{arch}_{rest.rpartition("x")[2] if family == "vid" else 224}_in1k'
    name = PRETRAINED.get(key)
    return name.format(arch=arch, source=source) if name else None


def decays(name: str, parameter: nn.Parameter, free: str) -> bool:
    """Whether the official rule lets a parameter decay."""
    if free == 'none':
        return True
    if free == 'norm':
        return 'norm' not in name
    if free == 'flat':
        return parameter.ndim > 1 and not name.endswith('.bias')
    if free == 'flat, cls_token':
        return decays(name, parameter, 'flat') and name.rpartition('.')[2] != 'cls_token'
    # openmixup: norms, biases and everything called pos_embed; residual scales in S only.
    words = ('norm', 'bias', 'pos_embed', *(['gamma'] if 'gamma' in free else []))
    return not any(word in name for word in words)
