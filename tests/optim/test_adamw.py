# SPDX-License-Identifier: Apache-2.0
"""The fused AdamW: its formula, when it is fused, and that nothing else notices."""

from __future__ import annotations

import pytest
import torch
from mmengine._strategy.fsdp import FSDPStrategy
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIMIZERS, DefaultScope
from torch import nn

from uniformer_mm.optim import FusedAdamW, adamw
from uniformer_mm.optim.sharding import ShardedAmpOptimWrapper
from uniformer_mm.optim.strategy import ResumableFSDPStrategy

LR, BETAS, EPS, DECAYS, STEPS = 0.03, (0.8, 0.95), 1e-6, (0.1, 0.0), 5
TORCH = tuple(int(part) for part in torch.__version__.split('.')[:2])
fused_on_a_cpu = pytest.mark.skipif(TORCH < (2, 4), reason='on a CPU torch fuses from 2.4 on')


def gradients(shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(STEPS)]


def by_hand(x: torch.Tensor, grads: list[torch.Tensor], decay: float) -> torch.Tensor:
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    x = x.detach().double().clone()
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    for step, grad in enumerate(grads, 1):
        g = grad.double()
        first = BETAS[0] * first + (1 - BETAS[0]) * g
        second = BETAS[1] * second + (1 - BETAS[1]) * g * g
        mean, variance = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        x = x - LR * decay * x - LR * mean / (variance.sqrt() + EPS)
    return x


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(11))]


def grouped(params: list[nn.Parameter]) -> list[dict]:
    return [dict(params=[p], weight_decay=decay) for p, decay in zip(params, DECAYS, strict=True)]


def stepped(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for p in params:
            p.grad = gradients(p.shape)[step]
        optimizer.step()


@pytest.mark.parametrize('has_kernel', [True, False])
def test_the_update_is_adamw_s(has_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_kernel:
        monkeypatch.setattr(adamw, '_device_has_kernel', lambda device: False)
    params = parameters()
    wanted = [by_hand(p, gradients(p.shape), d) for p, d in zip(params, DECAYS, strict=True)]
    optimizer = FusedAdamW(grouped(params), lr=LR, betas=BETAS, eps=EPS)
    assert bool(optimizer.param_groups[0]['fused']) == (has_kernel and TORCH >= (2, 4))
    stepped(optimizer, params, range(STEPS))
    for p, want in zip(params, wanted, strict=True):
        torch.testing.assert_close(p.double(), want, rtol=1e-5, atol=1e-6)


@fused_on_a_cpu
def test_plain_parameters_and_lists_of_them_are_fused() -> None:
    assert FusedAdamW(iter(parameters())).defaults['fused']
    assert FusedAdamW([dict(params=parameters()), dict(params=parameters()[0])]).defaults['fused']


def test_parameters_may_come_from_generators() -> None:
    model = nn.Linear(3, 2)
    optimizer = FusedAdamW([dict(params=model.parameters())])
    assert optimizer.param_groups[0]['params'] == list(model.parameters())
    if TORCH >= (2, 6):
        named = FusedAdamW(model.named_parameters())
        assert named.param_groups[0]['params'] == list(model.parameters())
        assert named.defaults['fused']


@pytest.mark.parametrize('choice', [dict(fused=False), dict(foreach=True), dict(capturable=True)])
def test_another_choice_is_the_user_s(choice: dict) -> None:
    group = FusedAdamW(parameters(), **choice).param_groups[0]
    assert not group['fused']
    assert {name: group[name] for name in choice} == choice


def test_what_no_kernel_takes_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not adamw.has_fused_kernel([torch.zeros(2, dtype=torch.complex64)])
    elsewhere = nn.Parameter(torch.zeros(3, device='meta'))
    monkeypatch.setattr(adamw, '_device_has_kernel', lambda device: device.type == 'cpu')
    assert not FusedAdamW([*parameters(), elsewhere]).defaults['fused'], 'all or none'


@pytest.mark.parametrize(
    'scope', ['mmengine', 'mmdet', 'mmseg', 'mmpose', 'mmaction', 'mmpretrain']
)
def test_builds_from_configs_of_every_toolbox(scope: str) -> None:
    wrapper = dict(optimizer=dict(type='uniformer_mm.FusedAdamW', lr=LR, weight_decay=0.1))
    with DefaultScope.overwrite_default_scope(scope):
        plain = build_optim_wrapper(nn.Linear(2, 3), wrapper)
        ruled = build_optim_wrapper(
            nn.Linear(2, 3), dict(wrapper, paramwise_cfg=dict(bias_decay_mult=0.0))
        )
    for built in (plain, ruled):
        assert type(built.optimizer) is FusedAdamW
        assert built.optimizer.param_groups[0]['lr'] == LR
    assert OPTIMIZERS.get('FusedAdamW') is FusedAdamW


FORMS = {'fused': {}, 'unfused': {'fused': False}, 'foreach': {'foreach': True}}


@pytest.mark.parametrize('then', ['fused', 'unfused'])
@pytest.mark.parametrize('first', [*FORMS, 'torch'])
@fused_on_a_cpu
def test_a_run_goes_on_in_its_own_form_from_any_checkpoint(first: str, then: str) -> None:
    params = parameters()
    wanted = [by_hand(p, gradients(p.shape), d) for p, d in zip(params, DECAYS, strict=True)]
    options = dict(lr=LR, betas=BETAS, eps=EPS)
    before = (
        torch.optim.AdamW(grouped(params), **options)
        if first == 'torch'
        else FusedAdamW(grouped(params), **options, **FORMS[first])
    )
    after = FusedAdamW(grouped(params), **options, **FORMS[then])
    stepped(before, params, range(2))
    after.load_state_dict(before.state_dict())
    assert {group['fused'] for group in after.param_groups} == {then == 'fused'}
    # A loss scaler asks the optimizer for its form once, and torch's forms refuse another's.
    scaler = torch.amp.GradScaler('cpu', init_scale=1.0)
    scaler.scale(params[0].sum())
    for step in range(2, STEPS):
        for p in params:
            p.grad = gradients(p.shape)[step]
        scaler.step(after)
        scaler.update()
    for p, want in zip(params, wanted, strict=True):
        torch.testing.assert_close(p.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
def test_sharded_fp16_looks_for_overflows_before_the_optimizer_does(
    clip: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused optimizer would look at its own rank's gradients only."""
    calls = []

    class Scaler:
        """Notes what is asked of it."""

        def unscale_(self, optimizer: object) -> None:
            calls.append('unscale')

        def step(self, optimizer: object) -> None:
            calls.append('step')

        def update(self, scale: object) -> None:
            calls.append('update')

    params = parameters()
    monkeypatch.setattr(ShardedAmpOptimWrapper, '__init__', lambda self: None)
    wrapper = ShardedAmpOptimWrapper()
    wrapper.optimizer, wrapper.loss_scaler = FusedAdamW(params), Scaler()
    wrapper.clip_grad_kwargs, wrapper._scale_update_param = clip, None
    monkeypatch.setattr(wrapper, '_clip_grad', lambda: calls.append('clip'))
    wrapper.step()
    assert calls == ['unscale', *(['clip'] if clip else []), 'step', 'update']


def test_fp16_that_is_not_sharded_is_refused_under_fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    built = AmpOptimWrapper.__new__(AmpOptimWrapper)
    monkeypatch.setattr(FSDPStrategy, 'build_optim_wrapper', lambda *arguments: built)
    strategy = ResumableFSDPStrategy.__new__(ResumableFSDPStrategy)
    with pytest.raises(ValueError, match=r"'AmpOptimWrapper' lets each GPU decide alone"):
        strategy.build_optim_wrapper({}, nn.Linear(1, 1))
    built = ShardedAmpOptimWrapper.__new__(ShardedAmpOptimWrapper)
    assert strategy.build_optim_wrapper({}, nn.Linear(1, 1)) is built
