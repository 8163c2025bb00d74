# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark_steps.py``: what its variants change, and what it refuses."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from tools import benchmark_steps
from tools.benchmarking.running import change_backbone


def config() -> Config:
    backbone = dict(type='uniformer_mm.UniFormer2d', arch='small')
    optimizer = dict(type='uniformer_mm.FusedAdamW')
    return Config(dict(model=dict(backbone=backbone), optim_wrapper=dict(optimizer=optimizer)))


@pytest.mark.parametrize(
    ('variant', 'options', 'fused'),
    [
        ('ours', {}, None),
        ('ours-unfused-adamw', {}, False),
        ('ours-autocast-stream', {'residual_dtype': 'autocast'}, None),
    ],
)
def test_a_variant_changes_what_its_name_says(variant: str, options: dict, fused: bool) -> None:
    plain, changed = config(), config()
    change_backbone(changed, variant)
    assert changed.model.backbone == {**plain.model.backbone, 'init_cfg': None, **options}
    assert changed.optim_wrapper.optimizer.get('fused') is fused


@pytest.mark.parametrize(
    'arguments', [[], ['--dtype', 'bfloat16', '--variant', 'reference', 'mmaction2']]
)
def test_what_cannot_be_emulated_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        benchmark_steps.main(['--emulate', *arguments])
    assert '--emulate is for --dtype bfloat16' in capsys.readouterr().err
