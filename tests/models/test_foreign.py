# SPDX-License-Identifier: Apache-2.0
"""What others hang on the network or put into it takes part as it does in the released one.

Hooks, wrappers, layers with a ``forward`` of their own, norms of other packages: with the fast
forms of the other blocks and without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm

from tests.models import official
from tests.models.test_official import both
from uniformer_mm.layers import DropPath
from uniformer_mm.models import UniFormer2d, UniFormer3d

ARCH = {'depths': (1, 1, 1, 1), 'dims': (8, 16, 16, 16), 'head_dim': 8, 'layer_scale': 0.5}


@pytest.fixture(autouse=True, params=['0', '1'], ids=['plain', 'fast'])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('UNIFORMER_FAST', request.param)


def images(batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    # Maps of stage 1 have as many rows as channels.
    return torch.randn(batch, 3, 33, 64, generator=draw, dtype=torch.float64)


def leaves(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if name and not list(module.children())]


def parent_and_name(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition('.')
    return model.get_submodule(parent), name


class Wrapper(nn.Module):
    """Changes what a layer returns, as an adapter does."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs) -> torch.Tensor:
        return 1.5 * self.layer(*inputs)


def hook(model: nn.Module, path: str) -> None:
    model.get_submodule(path).register_forward_hook(lambda module, inputs, y: 1.5 * y)


def wrap(model: nn.Module, path: str) -> None:
    parent, name = parent_and_name(model, path)
    setattr(parent, name, Wrapper(getattr(parent, name)))


def give_forward(model: nn.Module, path: str) -> None:
    layer = model.get_submodule(path)
    of_the_class = layer.forward
    layer.forward = lambda *inputs: 1.5 * of_the_class(*inputs)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('change', [hook, wrap, give_forward])
def test_every_layer_is_called(change: Callable, training: bool) -> None:
    ours, theirs = (model.train(training) for model in both(2, ARCH, {}))
    shared = set(leaves(theirs))
    x = images()
    for path in leaves(ours):
        assert path in shared
        pair = [copy.deepcopy(model) for model in (ours, theirs)]
        for model in pair:
            change(model, path)
        with torch.no_grad():
            found, want = (model(x) for model in pair)
        for y, z in zip(found, want, strict=True):
            torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9, msg=lambda m, p=path: p + m)


class LowRank(nn.Module):
    """A minimal LoRA around a 1x1 convolution."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.down = nn.Conv2d(conv.in_channels, 2, 1).double()
        self.up = nn.Conv2d(2, conv.out_channels, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.up(self.down(x))


@pytest.mark.parametrize('path', ['blocks1.0.conv1', 'blocks2.0.conv2', 'blocks1.0.mlp.fc2'])
def test_adapters_of_convolutions_get_channels_first(path: str) -> None:
    ours, theirs = (model.eval() for model in both(2, ARCH, {}))
    parent, name = parent_and_name(ours, path)
    torch.manual_seed(0)
    adapter = LowRank(getattr(parent, name))
    setattr(parent, name, adapter)
    other, name = parent_and_name(theirs, path)
    adapter_of_theirs = copy.deepcopy(adapter)
    adapter_of_theirs.conv = getattr(other, name)
    setattr(other, name, adapter_of_theirs)
    with torch.no_grad():
        for y, z in zip(ours(images()), theirs(images()), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    'change',
    [lambda conv: prune.l1_unstructured(conv, 'weight', 0.5), spectral_norm],
    ids=['prune', 'spectral norm'],
)
def test_weights_that_are_made_in_each_pass(change: Callable) -> None:
    pair = both(2, ARCH, {})
    for model in pair:
        torch.manual_seed(0)
        change(model.blocks2[0].pos_embed)
        model.train()
    for _ in range(2):
        grads = []
        for model in pair:
            model.zero_grad()
            sum(y.square().sum() for y in model(images())).backward()
            grads.append(model.blocks2[0].pos_embed.weight_orig.grad)
        torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


class Synchronised(nn.Module):
    """A BatchNorm that is no subclass of torch's, as mmcv's is not."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm_in_eval = [norm]
        for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            held = name in dict(norm.named_buffers())
            (self.register_buffer if held else self.register_parameter)(name, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm_in_eval[0].eval()(x)


def foreign_norms(model: nn.Module, kind: str) -> nn.Module:
    """The network with BatchNorms of another class."""
    if kind == 'mmengine':
        from mmengine.model import revert_sync_batchnorm

        return revert_sync_batchnorm(nn.SyncBatchNorm.convert_sync_batchnorm(model))
    for path, norm in list(model.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            parent, name = parent_and_name(model, path)
            setattr(parent, name, Synchronised(norm))
    return model


@pytest.mark.parametrize('kind', ['other', 'mmengine'])
def test_norms_of_other_packages(kind: str) -> None:
    ours, theirs = both(2, ARCH, {})
    ours = foreign_norms(ours, kind)
    ours.norm_eval = True
    ours.train()
    norms = [m for m in ours.modules() if 'running_mean' in m._buffers]
    assert len(norms) == 4
    assert not any(norm.training for norm in norms)
    ours.eval()
    with torch.no_grad():
        for y, z in zip(ours(images()), theirs.eval()(images()), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('synchronised', [False, True])
def test_checkpointing_with_synchronised_norms(synchronised: bool) -> None:
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = UniFormer2d(ARCH, with_cp=with_cp).double()
        if synchronised:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        sum(y.square().sum() for y in model(images())).backward()
        results.append(([p.grad for p in model.parameters()], model.state_dict()))
    torch.testing.assert_close(*results)


def test_statistics_stay_where_they_are_not_tracked() -> None:
    """As consistency training toggles it for a second pass."""
    ours, theirs = (model.train() for model in both(2, ARCH, {}))
    for tracked in (True, False, True):
        for model in (ours, theirs):
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.track_running_stats = tracked
            model(images())
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-9, atol=1e-9)


def test_any_block_may_be_exchanged() -> None:
    arch = ARCH | {'depths': (1, 1, 3, 1), 'layer_scale': None}
    ours, theirs = (model.eval() for model in both(2, arch, {}))
    with torch.no_grad():
        ours(images())
        for model in (ours, theirs):
            model.blocks3[1] = copy.deepcopy(model.blocks3[2])
        for y, z in zip(ours(images()), theirs(images()), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)


def test_a_block_may_be_compiled_by_itself() -> None:
    ours, theirs = (model.eval() for model in both(2, ARCH, {}))
    torch._dynamo.reset()
    ours.blocks3[0].compile(backend='eager', fullgraph=True)
    with torch.no_grad():
        for y, z in zip(ours(images()), theirs(images()), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)


def test_a_block_in_another_precision() -> None:
    ours, _ = both(2, ARCH, {})
    ours.float().eval().cpu_dtypes = {torch.bfloat16, torch.float16}
    seen = []
    block = ours.blocks3[0]
    forward = block.forward

    def in_float32(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        with torch.autocast('cpu', enabled=False):
            return forward(x)

    block.forward = in_float32
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        ours(images().float())
    (x,) = seen
    with torch.no_grad():
        exact = copy.deepcopy(block).double()
        del exact.forward
        torch.testing.assert_close(forward(x).double(), exact(x.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('scale', [None, 0.5])
def test_divided_attention_drops_pixels_and_frames(
    scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Officially pixels and frames are samples of a batch there, and depth drops samples."""

    def draw(count: int) -> torch.Tensor:
        kept = torch.rand(count, generator=torch.Generator().manual_seed(count)) > 0.4
        return kept.double() / 0.6

    rows = []

    def their_draw(_, x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return x * draw(len(x)).view(-1, *(1,) * (x.ndim - 1))

    monkeypatch.setattr(DropPath, 'forward', their_draw)
    monkeypatch.setattr(official.DropPath, 'forward', their_draw)
    arch = ARCH | {'layer_scale': scale, 'depths': (1, 1, 2, 1)}
    pair = [model.train() for model in both(3, arch, {'attention': 'divided'})]
    clip = torch.randn(2, 3, 6, 33, 64, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for model in pair:
        x = clip.clone().requires_grad_()
        maps = model(x)
        sum(y.square().sum() for y in maps).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append((maps, x.grad, grads))
    assert {2 * 2 * 4, 2 * 3, 2} <= set(rows)
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)


def example(front: type) -> torch.Tensor:
    return images() if front is UniFormer2d else images()[:, :, None].repeat(1, 1, 4, 1, 1)


@pytest.mark.parametrize('front', [UniFormer2d, UniFormer3d])
def test_a_trace_holds_no_operator_of_ours(front: type) -> None:
    """It is loaded where this package is not."""
    model, x = front(ARCH).double().eval(), example(front)
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        assert 'uniformer_mm::' not in str(traced.inlined_graph)
        torch.testing.assert_close(traced(-x), model(-x), rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not hasattr(torch.compiler, 'is_exporting'), reason='asks for torch 2.7')
@pytest.mark.parametrize('front', [UniFormer2d, UniFormer3d])
def test_an_exported_program_holds_no_operator_of_ours(front: type) -> None:
    model, x = front(ARCH).double().eval(), example(front)
    exported = torch.export.export(model, (x,))
    assert 'uniformer_mm.' not in str(exported.graph)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(-x), model(-x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('multiplies', [True, False])
def test_stages_are_those_of_the_network_under_autocast(multiplies: bool) -> None:
    model = UniFormer2d(ARCH, out_norm=None).eval()
    model.cpu_dtypes = {torch.bfloat16} if multiplies else set()
    x = images().float()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        for stage, whole in zip(model.iter_stages(x), model(x), strict=True):
            assert torch.is_autocast_enabled('cpu')
            torch.testing.assert_close(stage.to(whole.dtype), whole, rtol=0, atol=0)
