# SPDX-License-Identifier: Apache-2.0
"""Modules that others put around, into or beside ours: adapters, LoRA, ties, copies, quantisers."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from .networks import (
    CASES,
    CLASSIFIERS,
    EVERY,
    Case,
    assert_same,
    classifier,
    dense,
    loss_of,
    reference_of,
    sample,
)
from .test_hooks import in_tokens, names


class Adapter(nn.Module):
    """A bottleneck beside a module, over the channels of a map or of tokens."""

    def __init__(self, inner: nn.Module, channels: int, axis: int) -> None:
        super().__init__()
        self.inner, self.axis = inner, axis
        generator = torch.Generator().manual_seed(channels)
        self.scale = nn.Parameter(torch.rand(channels, generator=generator).double() + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, Tensor)
        y = self.inner(x)
        return y * self.scale.view(-1, *(1,) * (y.ndim - 1 - self.axis % y.ndim))


def channels_of(module: nn.Module, x: Tensor) -> int:
    """The width of what a module returns, by asking it."""
    return module(x).shape[1]


def put_around(model: nn.Module, name: str, width: int, axis: int) -> None:
    parent, _, child = name.rpartition('.')
    owner = model.get_submodule(parent)
    inner = getattr(owner, child)
    setattr(owner, child, Adapter(inner, width, axis))


def width_of(case: Case, name: str) -> int:
    """Channels of what a child returns, by its official name."""
    dim = case.arch['dims'][int(name.partition('.')[0][-1]) - 1]
    return {'qkv': 3 * dim, 'fc1': 4 * dim}.get(name.rpartition('.')[2], dim)


def adapted(case: Case) -> Iterator[str]:
    """Every child of the network that takes one tensor, from the inside out."""
    children = names(case)
    if case.hourglass:
        # Blocks take three; attention is asked for scores too, by the reference in its own way.
        blocks = ('blocks3', 'blocks4')
        children = [
            name
            for name in children
            if not name.startswith(blocks) or (name.count('.') > 1 and not name.endswith('attn'))
        ]
    yield from sorted(children, key=lambda name: -name.count('.'))


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('name', EVERY)
def test_an_adapter_around_every_child(name: str, training: bool) -> None:
    """``forward(self, x)`` and no more; outputs and gradients are the reference's."""
    case = CASES[name]
    model = dense(case).double().train(training)
    reference, x = reference_of(case, model), sample(case)
    results = []
    for net in (model, reference):
        for child in adapted(case):
            tokens = in_tokens(case, child) or child.startswith('norm')
            put_around(net, child, width_of(case, child), -1 if tokens else 1)
        outputs = net(x)
        loss_of(outputs).backward()
        grads = [p.grad for key, p in sorted(net.named_parameters())]
        results.append((outputs, grads))
    assert_same(results[0][0], results[1][0], 1e-8)
    for got, want in zip(results[0][1], results[1][1], strict=True):
        assert (got - want).norm() <= 1e-7 * want.norm() + 1e-9


@pytest.mark.parametrize('child', ['mlp', 'attn', 'norm2', ''])
@pytest.mark.parametrize('name', ['image_window', 'clip_global', 'clip_divided'])
def test_one_adapter_in_float32_inference(name: str, child: str) -> None:
    """Beside blocks that are as they were."""
    case = CASES[name]
    model = dense(case).eval()
    reference, x = reference_of(case, model).double(), sample(case)
    with torch.no_grad():
        model(x.float())
        for net, dtype in ((model, torch.float32), (reference, torch.float64)):
            for stage in ('blocks1', 'blocks3'):
                place = f'{stage}.0.{child}'.strip('.')
                tokens = stage == 'blocks3' and child not in ('', 'pos_embed')
                put_around(net, place, width_of(case, place), -1 if tokens else 1)
            net.to(dtype)
        assert_same(model(x.float()), reference(x), 2e-4)


def lora(model: nn.Module, targets: list[str]) -> nn.Module:
    peft = pytest.importorskip('peft', reason='peft is not installed')
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_lora_of_peft(name: str) -> None:
    """On every linear layer and every pointwise convolution: outputs, gradients, merging."""
    case = CASES[name]
    targets = ['qkv', 'attn.proj', 'fc1', 'fc2', 'conv1', 'conv2']
    model = dense(case).double().train()
    reference, x = reference_of(case, model), sample(case)
    plain = copy.deepcopy(model)
    pair = [lora(net, targets).double() for net in (model, reference)]
    weights = pair[0].state_dict()
    pair[1].load_state_dict(weights)
    results = []
    for net in pair:
        outputs = net(x)
        loss_of(outputs).backward()
        grads = {key: p.grad for key, p in net.named_parameters() if p.requires_grad}
        assert grads
        assert all('lora' in key for key in grads)
        results.append((outputs, grads))
    assert_same(results[0][0], results[1][0], 1e-8)
    assert results[0][1].keys() == results[1][1].keys()
    for key, want in results[1][1].items():
        assert (results[0][1][key] - want).norm() <= 1e-7 * want.norm() + 1e-9, key
    linears = [m for m in reference.modules() if type(m).__module__.startswith('peft')]
    assert len(linears) > 10
    adapted_outputs = pair[0].eval()(x)
    assert max((a - b).abs().max() for a, b in zip(adapted_outputs, plain.eval()(x), strict=True))
    merged = pair[0].merge_and_unload()
    assert_same(merged.eval()(x), adapted_outputs, 1e-8)
    assert merged.state_dict().keys() == plain.state_dict().keys()


def tie(model: nn.Module) -> None:
    """One module at two places, and one parameter in two modules."""
    first, second = model.blocks3[0], model.blocks3[1]
    second.mlp = first.mlp
    second.attn.qkv.weight = first.attn.qkv.weight
    second.norm1.weight = first.norm2.weight
    model.blocks1[0].mlp.fc1.bias = nn.Parameter(model.blocks1[0].mlp.fc1.bias.detach())
    model.blocks1[0].conv2.weight = model.blocks1[0].conv1.weight


@pytest.mark.parametrize('name', EVERY)
def test_tied_weights(name: str) -> None:
    case = CASES[name]
    model = dense(case).double().train()
    reference, x = reference_of(case, model), sample(case)
    results = []
    for net in (model, reference):
        tie(net)
        outputs = net(x)
        loss_of(outputs).backward()
        results.append((outputs, dict(net.named_parameters())))
    assert_same(results[0][0], results[1][0], 1e-8)
    ours, theirs = results[0][1], results[1][1]
    assert ours.keys() == theirs.keys()
    assert len(ours) < len(list(dense(case).parameters()))
    for key, want in theirs.items():
        assert (ours[key].grad - want.grad).norm() <= 1e-7 * want.grad.norm() + 1e-9, key


@pytest.mark.parametrize('name', EVERY)
def test_copies_and_pickles(name: str) -> None:
    """After a pass, training and inference; the copy shares nothing."""
    case = CASES[name]
    model, x = dense(case), sample(case, dtype=torch.float32)
    loss_of(model(x)).backward()
    with torch.no_grad():
        want = model.eval()(x)
        stream = io.BytesIO()
        torch.save(model, stream)
        stream.seek(0)
        copies = [
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            torch.load(stream, weights_only=False),
        ]
        for other in copies:
            assert_same(other(x), want, 1e-6)
            assert other.state_dict().keys() == model.state_dict().keys()
        model.blocks3[0].mlp.fc1.weight.zero_()
        for other in copies:
            assert_same(other(x), want, 1e-6)


@pytest.mark.parametrize('name', EVERY)
def test_modules_that_stay_in_float32(name: str) -> None:
    """``float32_modules`` of the bfloat16 wrapper, by name, while the rest is under autocast."""
    from uniformer_mm.optim.bfloat16 import computing_in_float32, find_module

    case = CASES[name]
    model, x = dense(case).eval(), sample(case, dtype=torch.float32)
    model.cpu_dtypes = {torch.bfloat16, torch.float16}
    kept = ['blocks3.0.mlp', 'blocks1.0.conv1', 'patch_embed2', 'blocks3.0.norm1']
    kept += [] if case.hourglass else ['blocks3.1.attn']
    seen = {}
    for child in [*kept, 'blocks4.0.mlp']:
        model.get_submodule(child).register_forward_hook(
            lambda module, inputs, y, child=child: seen.update({child: (inputs[0].dtype, y.dtype)})
        )
    modules = [find_module(model, child) for child in kept]
    with torch.no_grad():
        exact = model(x)
        with torch.autocast('cpu', torch.bfloat16), computing_in_float32(modules, 'cpu'):
            found = model(x)
    single = (torch.float32, torch.float32)
    assert {child: seen[child] for child in kept} == dict.fromkeys(kept, single)
    assert seen['blocks4.0.mlp'][1] == torch.bfloat16
    assert_same(found, exact, 0.15)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_dynamic_quantisation_finds_every_linear_layer(name: str) -> None:
    from torch.ao.quantization import quantize_dynamic

    case = CASES[name]
    model, x = classifier(case).eval(), sample(case, dtype=torch.float32)
    if 'qnnpack' not in torch.backends.quantized.supported_engines:
        pytest.skip('this build of torch has no engine for quantised layers')
    linears = sum(type(m) is nn.Linear for m in reference_of(case, model).modules())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        small = quantize_dynamic(model, {nn.Linear}, torch.qint8)
    found = [m for m in small.modules() if isinstance(m, torch.ao.nn.quantized.dynamic.Linear)]
    assert len(found) == linears
    assert not any(type(m) is nn.Linear for m in small.modules())
    with torch.no_grad():
        assert_same(small(x), model(x), 0.1)
        assert not torch.equal(small(x), model(x))


@pytest.mark.slow
def test_dynamic_quantisation_of_uniformer_s() -> None:
    """45 linear layers: four in each of eleven blocks, and the head."""
    from torch.ao.quantization import quantize_dynamic

    model = CLASSIFIERS[2]('small', num_classes=10).eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        small = quantize_dynamic(model, {nn.Linear}, torch.qint8)
    found = [m for m in small.modules() if isinstance(m, torch.ao.nn.quantized.dynamic.Linear)]
    assert len(found) == 45
