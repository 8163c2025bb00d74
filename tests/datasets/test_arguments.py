# SPDX-License-Identifier: Apache-2.0
"""Values that no clip can be transformed with are refused where the transform is built."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim.scheduler.param_scheduler import INF

from uniformer_mm.datasets.video import (
    AugmentedCopies,
    ClipRandAugment,
    ClipRandomResizedCrop,
    ClipShortSideResize,
    ClipUniformCrop,
    CubeErasing,
    LinspaceSampleFrames,
    MirrorCutmix,
    MirrorMixup,
    SegmentSampleFrames,
)
from uniformer_mm.hooks import WarmupCosineLR

NAN = float('nan')
SCHEDULE = {'total': 9, 'warmup': 2, 'warmup_lr': 1e-6, 'min_lr': 1e-5}


@pytest.mark.parametrize(
    ('transform', 'arguments', 'message'),
    [
        (ClipRandAugment, {'num_ops': -1}, 'num_ops=-1 must be an integer of at least 0'),
        (ClipRandAugment, {'num_ops': '4'}, "num_ops='4' must be an integer"),
        (ClipRandAugment, {'num_ops': True}, 'num_ops=True must be an integer'),
        (ClipRandAugment, {'magnitude': '7'}, "magnitude='7' must be between 0 and 10"),
        (ClipRandAugment, {'magnitude': NAN}, 'magnitude=nan must be between 0 and 10'),
        (ClipRandAugment, {'magnitude_std': -1}, 'magnitude_std=-1 must be at least 0'),
        (ClipRandAugment, {'magnitude_std': None}, 'magnitude_std=None must be at least 0'),
        (ClipRandAugment, {'prob': 7}, 'prob=7 must be between 0 and 1'),
        (ClipRandAugment, {'increasing': 'no'}, "increasing='no' must be True or False"),
        (ClipRandAugment, {'fill': 128}, 'fill=128 must be three integers from 0 to 255'),
        (ClipRandAugment, {'fill': (1, 2)}, r'fill=\(1, 2\) must be three integers'),
        (ClipRandAugment, {'fill': (0, 0, 256)}, r'fill=\(0, 0, 256\) must be three integers'),
        (ClipRandAugment, {'interpolation': 'lanczos'}, "interpolation='lanczos' is not known"),
        (ClipRandAugment, {'interpolation': None}, 'interpolation=None is not known'),
        (
            ClipRandomResizedCrop,
            {'size': 8, 'area_range': (2, 3)},
            r'area_range=\(2, 3\) must be two rising numbers above 0 and at most 1',
        ),
        (ClipRandomResizedCrop, {'size': 8, 'area_range': 0.5}, 'area_range=0.5 must be two'),
        (
            ClipRandomResizedCrop,
            {'size': 8, 'aspect_ratio_range': (0, 1)},
            r'aspect_ratio_range=\(0, 1\) must be two rising numbers above 0',
        ),
        (ClipRandomResizedCrop, {'size': True}, 'size=True must be a size in pixels'),
        (ClipShortSideResize, {'short_side': '8'}, "short_side='8' must be a size in pixels"),
        (ClipUniformCrop, {'size': 8, 'num_crops': True}, 'num_crops=True must be 1 or 3'),
        (CubeErasing, {'area_range': (0.5, 0.1)}, r'area_range=\(0.5, 0.1\) must be two rising'),
        (CubeErasing, {'aspect_ratio_range': (1, NAN)}, 'must be two rising numbers'),
        (CubeErasing, {'prob': '1'}, "prob='1' must be between 0 and 1"),
        (MirrorMixup, {'alpha': '1', 'num_classes': 3}, "alpha='1' must be positive"),
        (MirrorCutmix, {'alpha': NAN, 'num_classes': 3}, 'alpha=nan must be positive'),
        (MirrorMixup, {'alpha': 1, 'num_classes': '3'}, "num_classes='3' must be an integer"),
        (AugmentedCopies, {'num_copies': True, 'transforms': []}, 'num_copies=True must be an'),
        (LinspaceSampleFrames, {'clip_len': True, 'frame_interval': 1}, 'clip_len=True must be'),
        (LinspaceSampleFrames, {'clip_len': 8, 'frame_interval': True}, 'frame_interval=True must'),
        (
            SegmentSampleFrames,
            {'clip_len': 8, 'test_mode': 'no'},
            "test_mode='no' must be True or False",
        ),
    ],
)
def test_impossible_values(transform: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f'^{transform.__name__}: .*{message}'):
        transform(**arguments)


def test_borders_are_possible() -> None:
    ClipRandAugment(num_ops=0, magnitude=0, magnitude_std=0, prob=1, fill=[0, 255, 0])
    ClipRandomResizedCrop(8, area_range=[1, 1], aspect_ratio_range=[1, 1])
    CubeErasing(prob=0, area_range=(1e-3, 1), aspect_ratio_range=(1, 1))


def schedule(build=WarmupCosineLR, **changes) -> WarmupCosineLR:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    return build(optimizer, **(SCHEDULE | changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'total': '5'}, "total='5' must be a number"),
        ({'total': INF}, None),
        ({'warmup': None}, 'warmup=None must be a number'),
        ({'warmup': True}, 'warmup=True must be a number'),
        ({'warmup_lr': '1e-6'}, "warmup_lr='1e-6' must be a number"),
        ({'min_lr': -1e-5}, 'min_lr=-1e-05 must be a number of at least 0'),
        ({'lag': NAN}, 'lag=nan must be a number'),
        ({'cosine_begin': [1]}, r'cosine_begin=\[1\] must be a number'),
        ({'multiply_warmup': 'no'}, "multiply_warmup='no' must be True or False"),
    ],
)
def test_impossible_schedules(changes: dict, message: str | None) -> None:
    builds = (WarmupCosineLR, lambda *args, **kwargs: WarmupCosineLR.build_iter_from_epoch(
        *args, epoch_length=3, **kwargs
    ))  # fmt: skip
    for build in builds:
        if message is None:
            schedule(build, **changes)
            continue
        with pytest.raises(ValueError, match=f'^{message}'):
            schedule(build, **changes)
