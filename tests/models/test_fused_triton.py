# SPDX-License-Identifier: Apache-2.0
"""Whole networks on the Triton kernels, in the interpreter on tiny ones and on a GPU.

``tests/ops/test_interpreter.py`` runs this file where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.test_golden import CASES as GOLDEN_CASES
from tests.models.test_golden import TOLERANCE, build, load_case, relative_errors
from tests.models.test_layout import CountCopies, saved_bytes
from tests.models.test_official import randomise, reference
from tests.ops.conftest import (
    INTERPRETED,
    _rounds_as_hardware,  # noqa: F401
    device,  # noqa: F401
    needs_kernels,
)
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.models import UniFormer2d, UniFormer3d, fused_norm, prepared
from uniformer_mm.models.blocks import DividedBlock, GlobalBlock, LocalBlock
from uniformer_mm.models.fused_mlp import gelu_product
from uniformer_mm.models.fused_norm import HALF

pytestmark = needs_kernels

# In the interpreter others take minutes.
GOLDEN = GOLDEN_CASES if torch.cuda.is_available() else ['cls_tiny', 'cls_xxs']
FRONTS = {2: UniFormer2d, 3: UniFormer3d}
SHORT = {'depths': (1, 1, 1, 1), 'dims': (8, 8, 16, 16), 'head_dim': 8}
# Windows of 2 pad a map of 3 columns in stage 3. Channels above 128 keep the hidden map.
CASES = {
    'image': (2, SHORT | {'depths': (1, 1, 2, 1)}, {'attention': 'window', 'window_size': 2}),
    'clip': (3, SHORT, {}),
    # 6 tokens, then 1.
    'light': (
        2,
        SHORT | {'depths': (1, 1, 2, 1), 'stem': 'conv', 'keep_ratios': ((1, 0.5), (0.5,))},
        {},
    ),
}


def networks(rank: int, arch: dict, options: dict) -> tuple[nn.Module, nn.Module]:
    """Ours in float32, the reference in float64, with the same random state."""
    # bfloat16 moves scores, and with them now and then which tokens a light network keeps.
    torch.manual_seed(0)
    ours = FRONTS[rank](arch, out_indices=(0, 1, 2, 3), **options)
    randomise(ours)
    ours.cpu_dtypes = {torch.bfloat16, torch.float16}
    theirs = reference(rank, arch, **options).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def images(rank: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, *((3,) * (rank - 2)), 33, 48, generator=draw, dtype=torch.float64)


def step(model: nn.Module, x: torch.Tensor, **autocast) -> tuple[list, dict, dict]:
    """Maps, gradients and buffers of one pass with random cotangents."""
    x = x.to(next(model.parameters())).detach().clone().requires_grad_()
    with torch.autocast(x.device.type, **(autocast or {'enabled': False})):
        maps = model(x)
    draw = torch.Generator().manual_seed(5)
    cotangents = (torch.randn(y.shape, generator=draw).to(y) for y in maps)
    model.zero_grad()
    sum((y * grad).sum() for y, grad in zip(maps, cotangents, strict=True)).backward()
    grads = {name: p.grad.double().cpu() for name, p in model.named_parameters()}
    grads['input'] = x.grad.double().cpu()
    buffers = {name: buffer.double().cpu() for name, buffer in model.named_buffers()}
    return [y.detach().double().cpu() for y in maps], grads, buffers


@pytest.fixture(autouse=True)
def _exact_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stem of light networks is the framework's."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('case', CASES)
def test_network_equals_the_reference(case: str, training: bool, device: str) -> None:  # noqa: F811
    rank = CASES[case][0]
    ours, theirs = networks(*CASES[case])
    x = images(rank)
    maps, grads, buffers = step(ours.to(device).train(training), x.to(device))
    want_maps, want_grads, want_buffers = step(theirs.train(training), x)
    for got, want in zip(maps, want_maps, strict=True):
        assert (got - want).norm() <= 3e-6 * want.norm()
    largest = max(want.norm() for want in want_grads.values())
    for name, want in want_grads.items():
        # The gradient of a bias before a norm is zero up to rounding: some units in the last place.
        assert (grads[name] - want).norm() <= 2e-5 * want.norm() + 3e-7 * largest, name
    torch.testing.assert_close(buffers, want_buffers, rtol=1e-5, atol=1e-5)


def relative(found: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    found, exact = (torch.cat([t.flatten().cpu() for t in tensors]) for tensors in (found, exact))
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize('case', CASES)
def test_bfloat16_error_is_near_the_reference_s(
    case: str,
    device: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of maps and gradients in training, against float64; the reference rounds as on a GPU."""
    monkeypatch.setattr(OfficialUniFormer, 'autocast_as_on_gpu', True)
    ours, theirs = networks(*CASES[case])
    x = images(CASES[case][0])
    exact = step(theirs.train(), x)
    errors = []
    for model in (theirs.float(), ours):
        found = step(model.to(device).train(), x.to(device), dtype=torch.bfloat16)
        maps = relative(found[0], exact[0])
        grads = relative([found[1][name] for name in exact[1]], list(exact[1].values()))
        errors.append((maps, grads))
    for name, theirs_error, our_error in zip(('maps', 'gradients'), *errors, strict=True):
        assert our_error <= 1.5 * theirs_error, (name, errors)


def test_maps_that_a_training_step_keeps(device: str) -> None:  # noqa: F811
    """No hidden map: the stream, two norms, what goes into and comes out of the convolution."""
    torch.manual_seed(0)
    x_BSC = torch.randn(2, 12, 12, 32, device=device).requires_grad_()
    unit = 2 * x_BSC.numel()
    for block, units in ((LocalBlock(2, 32, 2), 5), (GlobalBlock(2, 32, 32, 2), 7)):
        block.to(device)
        weights = 2 * sum(p.numel() for p in block.parameters())
        with torch.autocast(device, torch.bfloat16):
            kept = saved_bytes(block, x_BSC) - weights
        # Inverse deviations and log-sums of scores: float32 numbers for each row.
        rows = 3 * 4 * x_BSC[..., 0].numel()
        assert (units - 1) * unit < kept <= units * unit + rows + 4096


@pytest.fixture
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter's time is that of programs and their statements, not of what they move."""
    from uniformer_mm.ops import mlp_tiles, tiles, triton_depthwise, triton_mlp, triton_weights
    from uniformer_mm.ops.launch import Constants

    if not INTERPRETED:
        yield
        return

    def tile_for(*problem: object) -> tiles.Tile:
        *_, channels, _ = problem
        return tiles.Tile(2, 7, 16, 32) if channels <= 64 else tiles.Tile(1, 1, 16, 32)

    monkeypatch.setattr(triton_depthwise, 'tile_for', tile_for)
    mlp_tile = mlp_tiles.MlpTile(512, 256, 4, 1, 1)
    monkeypatch.setattr(triton_mlp, 'mlp_tile', lambda *_: mlp_tile)
    fold = Constants(triton_weights.FOLD, BLOCK_O=16 * triton_weights.FOLD['BLOCK_O'])
    monkeypatch.setattr(triton_weights, 'FOLD', fold)
    monkeypatch.setattr(triton_weights, '_tables', {})
    triton_mlp._plan.cache_clear()
    yield
    triton_mlp._plan.cache_clear()


BLOCKS = {
    'local': (lambda: LocalBlock(2, 16, 2), {}, {}),
    # The gradients of queries, keys and values are joined.
    'wide': (lambda: GlobalBlock(2, 136, 17, 1), {}, {'cat': 1}),
    'global': (lambda: GlobalBlock(2, 16, 8, 2), {}, {'cat': 1}),
    # To windows that pad the map, and back.
    'window': (
        lambda: GlobalBlock(2, 16, 8, 2, window_size=3),
        {'index_select': 2},
        {'index_select': 2, 'cat': 1},
    ),
    # Frames become neighbours, and go back.
    'divided': (lambda: DividedBlock(3, 16, 8, 2), {'clone': 2}, {'clone': 2, 'cat': 2}),
}


@pytest.mark.parametrize('block', BLOCKS)
def test_no_copies_and_casts_of_maps(
    block: str,
    device: str,  # noqa: F811
    large_tiles: None,
) -> None:
    """In a training step with the default stream, float32, beside products in bfloat16."""
    torch.manual_seed(0)
    make, forward, backward = BLOCKS[block]
    module = make().to(device)
    batch = 11
    frames = (2,) * (module.pos_embed.weight.ndim - 4)
    x_BSC = torch.randn(batch, *frames, 2, 4, module.pos_embed.weight.shape[0], device=device)
    x_BSC.requires_grad_()
    with torch.autocast(device, torch.bfloat16), CountCopies(batch) as there:
        y_BSC = module(x_BSC)
    cotangent = torch.randn_like(y_BSC)
    with CountCopies(batch) as back:
        torch.autograd.grad(y_BSC, [x_BSC, *module.parameters()], cotangent)
    assert (dict(there.found), dict(back.found)) == (forward, backward)


@pytest.mark.parametrize('dims', [SHORT['dims'], (8, 8, 136, 136)], ids=['narrow', 'wide'])
def test_inference_equals_the_plain_form(
    dims: tuple[int, ...],
    device: str,  # noqa: F811
    large_tiles: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """BatchNorm folds into products on the stream's copy in bfloat16."""
    rank, arch, options = CASES['image']
    ours, _ = networks(rank, arch | {'dims': dims}, options)
    ours.to(device).eval()
    x = images(2).float().to(device)
    with torch.no_grad():
        exact = [y.double() for y in ours(x)]
        with torch.autocast(device, torch.bfloat16):
            found = [y.double() for y in ours(x)]
            monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_: False)
            plain = [y.double() for y in ours(x)]
    assert 0 < relative(found, exact) <= 1.5 * relative(plain, exact)


class CountGelus(TorchDispatchMode):
    """Counts passes over a map that are a GELU and nothing else."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func.overloadpacket.__name__ in ('gelu', 'gelu_')
        return func(*args, **(kwargs or {}))


def test_inference_has_no_pass_for_the_gelu(
    device: str,  # noqa: F811
    large_tiles: None,
) -> None:
    block = GlobalBlock(2, 136, 17, 2).to(device).eval()
    x_BSC = torch.randn(1, 3, 4, 136, device=device)
    with torch.no_grad(), CountGelus() as exact:
        block(x_BSC)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16), CountGelus() as half:
        block(x_BSC)
    assert (exact.found, half.found) == (1, 0)


@pytest.mark.parametrize('dtype', HALF)
def test_gelu_of_a_product_is_as_exact_as_one_after_it(
    dtype: torch.dtype,
    device: str,  # noqa: F811
) -> None:
    """A GPU takes the tanh GELU of unrounded sums. A CPU rounds them first; its form is torch's."""
    draw = torch.Generator().manual_seed(0)
    x, w, b = (
        torch.randn(size, generator=draw).div(scale).to(device, dtype)
        for size, scale in (((130, 192), 1), ((640, 192), 10), ((640,), 1))
    )
    want = F.gelu(x.double() @ w.double().t() + b.double())
    found, usual = gelu_product(x, w, b), F.gelu(torch.addmm(b, x, w.t()))
    ours, theirs = ((y.double() - want).norm() / want.norm() for y in (found, usual))
    assert 0 < ours <= 1.25 * theirs


def watch_formulas(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether maps went through the formulas, each time that a stage asked."""
    asked = []
    runs = prepared.runs
    monkeypatch.setattr(prepared, 'runs', lambda x: asked.append(runs(x)) or asked[-1])
    return asked


@pytest.mark.parametrize('name', GOLDEN)
def test_golden_outputs(
    name: str,
    device: str,  # noqa: F811
    large_tiles: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The released networks', through the kernels."""
    asked = watch_formulas(monkeypatch)
    case, outputs, fill = load_case(name)
    errors = relative_errors(build(case, fill).float().to(device), case, outputs, fill)
    assert asked
    assert all(asked), 'the kernels did not run'
    assert max(errors) <= TOLERANCE[torch.float32]
