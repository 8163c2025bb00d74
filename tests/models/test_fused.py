# SPDX-License-Identifier: Apache-2.0
"""The formulas of a GPU's eager mode, on the CPU through the framework's own operators.

In float64 they must equal the plain reference to the last digits. ``test_fused_triton.py`` runs
them on the kernels.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tests.models import test_official
from tests.models.test_layout import saved_bytes
from tests.models.test_official import TINY, VARIANTS
from tools.reference.uniformer import CBlock, SABlock
from uniformer_mm.models import UniFormer2d, fused, fused_mlp, fused_norm
from uniformer_mm.models.blocks import DividedBlock, GlobalBlock, LocalBlock
from uniformer_mm.models.layers import DropPath
from uniformer_mm.models.uniformer import HYBRID_PERIOD


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were kernels for every dtype."""
    monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_: True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the formulas that run."""
    seen = []
    for function in (*vars(fused).values(), fused_mlp._AddNormMlp):
        if isinstance(function, type) and issubclass(function, torch.autograd.Function):

            def record(*args, name=function.__name__, apply=function.apply):
                seen.append(name)
                return apply(*args)

            monkeypatch.setattr(function, 'apply', record)
    return seen


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_network_equals_the_reference(variant: str, training: bool, calls: list[str]) -> None:
    test_official.test_gradients_and_statistics_are_the_reference_s(variant, training, batch=2)
    _, arch, options = VARIANTS[variant]
    local, attending = sum(arch['depths'][:2]), sum(arch['depths'][2:])
    # Hourglass blocks do without sums in formulas: the merged token's gain is their branches'.
    light = attending if 'keep_ratios' in arch else 0
    attention = options.get('attention', 'global')
    divided = attention == 'divided'
    # Where tokens are moved before they attend, the norm is a formula of its own.
    windowed = {'window': 1, 'hybrid': 1 - 1 / HYBRID_PERIOD}.get(attention, 0)
    moved = 2 * attending if divided else math.ceil(windowed * arch['depths'][2])
    assert calls.count('_Depthwise') == 2 * local + attending
    assert calls.count('_AddNormMlp') == local + attending
    assert calls.count('_NormLinear') == local + attending * (1 + divided) - moved
    assert calls.count('_LayerStandardise') == moved
    expected = 0 if 'layer_scale' in arch else local + attending - light
    assert calls.count('_AddLinear') == expected + attending * divided


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients for a fixed cotangent."""
    x = x.detach().requires_grad_()
    y = model(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    model.zero_grad()
    return [y.detach(), *torch.autograd.grad(y, [x, *model.parameters()], grad)]


def block_and_input(kind: type = LocalBlock, **options) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    rank = 3 if kind is DividedBlock else 2
    block = kind(rank, 16, *((8,) * (kind is not LocalBlock)), 4, **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block, torch.randn(2, *((3,) * (rank - 2)), 5, 7, 16).double()


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_: False)


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (LocalBlock, {'drop_path': 0.5}),
        (LocalBlock, {'layer_scale': 0.5}),
        (GlobalBlock, {'drop_path': 0.5}),
        (GlobalBlock, {'window_size': 3}),
        (GlobalBlock, {'window_size': 4, 'layer_scale': 0.5, 'drop_path': 0.5}),
        (DividedBlock, {'drop_path': 0.5}),
    ],
)
def test_blocks_equal_their_plain_form(
    kind: type, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = block_and_input(kind, **options)
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(gradients(copy.deepcopy(block), x))
        plain(monkeypatch)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_statistics_move_once_under_checkpointing(momentum: float | None) -> None:
    torch.manual_seed(0)
    networks = [UniFormer2d(TINY, with_cp=cp, out_indices=(1,)).double() for cp in (False, True)]
    networks[1].load_state_dict(networks[0].state_dict())
    x = torch.randn(2, 3, 40, 33).double()
    grads = []
    for model in networks:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        for _ in range(2):
            model.zero_grad()
            model(x)[0].square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(networks[0].state_dict(), networks[1].state_dict())
    torch.testing.assert_close(*grads)
    assert networks[0].blocks1[0].norm1.num_batches_tracked == 2


def test_frozen_and_fixed_norms(calls: list[str]) -> None:
    """Running statistics in training, parameters that need no gradient, frozen stages."""
    torch.manual_seed(0)
    model = UniFormer2d(TINY, norm_eval=True, frozen_stages=1, out_indices=(1,)).double().train()
    model.blocks2[0].conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 3, 40, 33).double()
    model(x)[0].square().sum().backward()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.blocks2[0].conv1.weight.grad is None
    for name, parameter in model.named_parameters():
        frozen = name.startswith(('patch_embed1', 'blocks1')) or name == 'blocks2.0.conv1.weight'
        assert (parameter.grad is None) == frozen, name
    assert '_NormLinear' in calls


@pytest.mark.parametrize('kind', [LocalBlock, GlobalBlock])
def test_a_graph_can_be_used_twice(kind: type) -> None:
    block, x = block_and_input(kind)
    y = block(x.requires_grad_())
    grad = torch.randn(y.shape).double()
    leaves = [x, *block.parameters()]
    first = torch.autograd.grad(y, leaves, grad, retain_graph=True)
    second = torch.autograd.grad(y, leaves, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_somebody_watches_or_replaces_is_called(calls: list[str]) -> None:
    block, x = block_and_input(GlobalBlock)
    seen = []
    for layer in (block.norm1, block.attn.proj, block.mlp):
        layer.register_forward_hook(lambda module, *_: seen.append(module))
    block(x)
    assert seen == [block.norm1, block.attn.proj, block.mlp]
    assert '_NormLinear' not in calls
    assert '_AddNormMlp' not in calls

    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    block, x = block_and_input(GlobalBlock)
    before = block(x)
    block.attn.qkv.__class__ = Doubled
    assert not torch.allclose(block(x), before)


@pytest.mark.parametrize('has_kernels', [True, False])
def test_a_tracer_sees_plain_operators(has_kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take what kernels write for what was in memory before."""
    formulas = []

    def standardise(self: fused_norm.FusedNorm, *maps: torch.Tensor | None) -> tuple:
        formulas.append(self.kind)
        return standardise.of_the_class(self, *maps)

    standardise.of_the_class = fused_norm.FusedNorm.standardise
    monkeypatch.setattr(fused_norm.FusedNorm, 'standardise', standardise)
    monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_: has_kernels)
    torch.manual_seed(0)
    model = UniFormer2d(TINY, out_indices=(3,)).eval()
    x, y = torch.randn(2, 3, 64, 48), torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        want = model(y)[0]
        assert bool(formulas) == has_kernels
        formulas.clear()
        traced = torch.jit.trace(model, x, check_trace=False)
        assert not formulas
        torch.testing.assert_close(traced(y)[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('norm', ['no statistics', 'synchronised', 'one row'])
def test_norms_that_cannot_be_part_of_a_formula(norm: str, calls: list[str]) -> None:
    block, x = block_and_input(LocalBlock)
    if norm == 'no statistics':
        block.norm1.running_mean = block.norm1.running_var = None
        block(x)
        assert calls.count('_NormLinear') == 0
        assert calls.count('_AddNormMlp') == 1
    elif norm == 'synchronised':
        block = nn.SyncBatchNorm.convert_sync_batchnorm(block)
        block(x)
        assert '_NormLinear' not in calls
        block.eval()(x)
        assert calls.count('_NormLinear') == 1
    else:
        with pytest.raises(ValueError, match='more than 1 value per channel'):
            block(x[:1, :1, :1])


def test_one_draw_of_stochastic_depth_for_each_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = block_and_input(LocalBlock, drop_path=0.5)
    draws = []
    factors = DropPath.factors
    monkeypatch.setattr(DropPath, 'factors', lambda *a: draws.append(1) or factors(*a))
    for has_kernels in (True, False):
        monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_, h=has_kernels: h)
        draws.clear()
        block(x)
        assert len(draws) == 2


def kept_units(block: nn.Module, x_BSC: torch.Tensor) -> float:
    """What a training forward keeps, in maps of bfloat16."""
    with torch.autocast('cpu', torch.bfloat16):
        return saved_bytes(block, x_BSC) / (2 * x_BSC.numel())


@pytest.mark.parametrize('rank', [2, 3])
def test_maps_that_a_training_step_keeps(rank: int) -> None:
    """Of a local block: the stream, two norms, what goes into and out of the convolution, hidden.

    A global block keeps three times its map for the attention instead, and a float32 number for
    each row of scores. Weights in bfloat16 and statistics are the rest.
    """
    torch.manual_seed(0)
    x_BSC = torch.randn(2, *((2,) * (rank - 2)), 32, 32, 64).requires_grad_()
    small = 0.8
    for block, theirs, units in (
        (LocalBlock(rank, 64, 4), CBlock(rank, 64, 4, 0, None), 5 + 4),
        (GlobalBlock(rank, 64, 32, 4), SABlock(rank, 64, 32, 4, 0, None), 7 + 4),
    ):
        kept = kept_units(block, x_BSC)
        assert units <= kept <= units + small
        channels_first = x_BSC.detach().movedim(-1, 1).contiguous().requires_grad_()
        if isinstance(block, LocalBlock):
            assert kept_units(theirs, channels_first) > 1.5 * kept
