# SPDX-License-Identifier: Apache-2.0
"""The openmixup configs against its rules: decay, rates of mmcv 1.x, average, initial weights."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, DefaultScope

from ..conftest import ROOT

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed; make setup installs it')

# configs/classification/imagenet/uniformer: arch, warm-up epochs, wrapper, clipping, and what does
# not decay (patterns on parameter names).
NO_DECAY = (r'(bn|ln|gn)(\d+)?\.(weight|bias)', 'norm', 'bias', 'pos_embed')
ROWS = {
    't': ('tiny', 5, 'OptimWrapper', dict(max_norm=5.0), NO_DECAY),
    's': ('small', 20, 'AmpOptimWrapper', None, (*NO_DECAY, 'gamma')),
}


@pytest.fixture(autouse=True)
def _mmpretrain_scope():
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def load(row: str) -> Config:
    return Config.fromfile(ROOT / f'configs/cls/uniformer_{row}_in1k_openmixup.py')


def tiny_model(cfg: Config) -> torch.nn.Module:
    """The config's model with few and narrow blocks."""
    from mmpretrain.registry import MODELS

    cfg.model.backbone.arch = dict(depths=(1, 1, 2, 1), dims=(16, 32, 64, 64), head_dim=32)
    cfg.model.head.in_channels = 64
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


@pytest.mark.parametrize('row', ROWS)
def test_the_row_of_the_recipe(row: str) -> None:
    arch, warmup, wrapper, clip, _ = ROWS[row]
    cfg = load(row)
    assert (cfg.model.backbone.arch, cfg.model.backbone.drop_path_rate) == (arch, 0.1)
    assert cfg.model.backbone.layer_scale == 1e-6
    assert cfg.model.head.in_channels == {'tiny': 256, 'small': 512}[arch]
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.clip_grad) == (wrapper, clip)
    assert (cfg.param_scheduler.warmup, cfg.train_cfg.max_epochs) == (warmup, 300)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (128, 1024)


@pytest.mark.parametrize('row', ROWS)
def test_what_decays(row: str) -> None:
    *_, patterns = ROWS[row]
    cfg = load(row)
    cfg.optim_wrapper.type = 'OptimWrapper'
    model = tiny_model(cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {}
    for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups:
        assert (group['lr'], group['betas'], group['eps']) == (1e-3, (0.9, 0.999), 1e-8)
        decay |= {names[id(p)]: group['weight_decay'] for p in group['params']}
    assert decay == {
        name: 0.0 if any(re.search(pattern, name) for pattern in patterns) else 0.05
        for name in names.values()
    }
    assert decay['backbone.blocks1.0.pos_embed.weight'] == 0.0
    assert decay['backbone.blocks3.0.gamma_1'] == (0.05 if row == 't' else 0.0)


@pytest.mark.parametrize('row', ROWS)
def test_rates_are_those_of_mmcv_1(row: str) -> None:
    """At every iteration a cosine from the first one, times the warm-up's rising factor."""
    _, warmup, *_ = ROWS[row]
    cfg, length = load(row), 4
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler), default_args=dict(optimizer=optimizer, epoch_length=length)
    )
    for i in range(300 * length):
        cosine = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * i / (300 * length)))
        k = max(1 - i / (warmup * length), 0) * (1 - 1e-6)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(cosine * (1 - k), rel=1e-9), i
        optimizer.step()
        scheduler.step()


def test_everything_starts_from_a_truncated_normal_and_small_scales() -> None:
    model = tiny_model(load('t'))
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.weight.numel() > 5000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert not module.bias.any()
    assert all((p == 1e-6).all() for n, p in model.named_parameters() if '.gamma_' in n)


def test_one_step_and_the_average_that_is_evaluated() -> None:
    """Parameters by recursion, buffers the model's own; evaluation and checkpoint have both."""
    from mmpretrain.structures import DataSample

    cfg = load('t')
    model = tiny_model(cfg).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    args = next(hook for hook in cfg.custom_hooks if hook['type'] == 'EMAHook')
    assert args['momentum'] == pytest.approx(4e-5)
    runner = SimpleNamespace(model=model, iter=0, epoch=0, _resume=False)
    hook = HOOKS.build(dict(args, momentum=0.25))
    hook.before_run(runner)
    average = None
    torch.manual_seed(0)
    for step in range(3):
        runner.iter = step
        samples = [DataSample().set_gt_label(i) for i in range(2)]
        inputs = list(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
        losses = model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
        assert losses['loss'].item() == pytest.approx(math.log(1000), rel=0.1)
        hook.after_train_iter(runner, step)
        now = {n: p.detach().clone() for n, p in model.named_parameters()}
        if average is None:
            average = now
        average = {n: 0.75 * average[n] + 0.25 * now[n] for n in now}
    assert all(torch.isfinite(p).all() for p in model.parameters())
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    assert any((b != 0).any() for n, b in buffers.items() if n.endswith('running_mean'))
    hook.before_val_epoch(runner)
    torch.testing.assert_close({n: p.detach() for n, p in model.named_parameters()}, average)
    torch.testing.assert_close(dict(model.named_buffers()), buffers)
    hook.after_val_epoch(runner)
    torch.testing.assert_close({n: p.detach() for n, p in model.named_parameters()}, now)
    checkpoint = dict(state_dict=model.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    torch.testing.assert_close({n: checkpoint['state_dict'][n] for n in average}, average)
