# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark/steps.py``: what its variants change, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tools.benchmark import steps as benchmark_steps
from tools.benchmark.running import MODES, change_backbone, change_precision, prepare
from uniformer_mm.synth import make_data


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


def test_the_recording_of_graphs_is_not_timed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_steps.main(['--variant', 'ours-graphs', '--warmup', '2'])
    assert 'would time the recording of ours-graphs' in capsys.readouterr().err


AVERAGE = dict(type='EMAHook')
TRAINING = dict(type='uniformer_mm.BFloat16OptimWrapper', float32_modules=('head',))
TEST = dict(type='uniformer_mm.InferenceAutocastHook', dtype='bfloat16', float32_modules=('head',))


@pytest.mark.parametrize('shipped', ['float32', 'float16', 'bfloat16'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'recipe'])
def test_training_and_inference_have_the_format_of_the_row(shipped: str, dtype: str) -> None:
    """Whatever the recipe trains and tests in; 'recipe' leaves it."""
    wrappers = {
        'float32': dict(type='OptimWrapper'),
        'float16': dict(type='AmpOptimWrapper', loss_scale='dynamic'),
        'bfloat16': TRAINING,
    }
    optimizer = dict(type='uniformer_mm.FusedAdamW')
    hooks = [AVERAGE, TEST] if shipped == 'bfloat16' else [AVERAGE]
    for mode in MODES:
        changed = config()
        changed.optim_wrapper = dict(wrappers[shipped], optimizer=optimizer)
        changed.custom_hooks = hooks
        change_precision(changed, dtype, ('head',))
        row = shipped if dtype == 'recipe' else dtype
        expected = dict(wrappers[row], optimizer=optimizer)
        assert changed.optim_wrapper == expected
        changed.train_dataloader = dict(dataset=dict())
        prepare(changed, mode, 3, Path('work'))
        kept = [TEST] if row == 'bfloat16' else []
        assert changed.custom_hooks == ([AVERAGE] if mode == 'training' else []) + kept


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_an_inference_row_computes_in_its_format(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = pytest.importorskip('mmpretrain.models', reason='mmpretrain is not installed')
    make_data(tmp_path, tasks=('cls',), size='tiny')
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path))
    seen, forward = set(), heads.LinearClsHead.forward

    def watched(self, features: tuple[torch.Tensor]) -> torch.Tensor:
        scores = forward(self, features)
        seen.add(scores.dtype)
        return scores

    monkeypatch.setattr(heads.LinearClsHead, 'forward', watched)
    arguments = f'--task cls --mode inference --dtype {dtype} --variant ours --rounds 1'
    arguments += ' --iterations 1 --warmup 1 --workers 0 --options test_dataloader.batch_size=2'
    assert benchmark_steps.main(arguments.split()) == 0
    assert seen == {getattr(torch, dtype)}
