# SPDX-License-Identifier: Apache-2.0
"""Hooks see (B, C, *S) maps and (B, N, C) tokens, those of the released network's modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from uniformer_mm.models.hourglass import pool_scores

from .networks import CASES, EVERY, Case, assert_same, dense, loss_of, reference_of, sample, tensors

# What an owner of the network may hook. The official code has the same names.
MLP = ('mlp', 'mlp.fc1', 'mlp.fc2')
LOCAL = ('', 'pos_embed', 'norm1', 'conv1', 'attn', 'conv2', 'norm2', *MLP)
GLOBAL = ('', 'pos_embed', 'norm1', 'attn', 'attn.qkv', 'attn.proj', 'norm2', *MLP)
DIVIDED = ('t_norm', 't_attn', 't_attn.qkv', 't_attn.proj')
EMBED = ('', 'proj', 'norm')


def names(case: Case) -> list[str]:
    """The modules of a network that tests hook, by their official names."""
    found = []
    for stage, depth in enumerate(case.arch['depths'], 1):
        conv = case.arch.get('stem' if stage == 1 else 'downsample') == 'conv'
        embed = ('', 'proj') if conv else EMBED
        found += [f'patch_embed{stage}.{child}'.strip('.') for child in embed]
        children = LOCAL if stage < 3 else GLOBAL
        if case.options.get('attention') == 'divided' and stage > 2:
            children += DIVIDED
        for index in range(depth):
            found += [f'blocks{stage}.{index}.{child}'.strip('.') for child in children]
        found.append(f'norm{stage}')
    return found


def in_tokens(case: Case, name: str) -> bool:
    """Whether a module sees (B, N, C) tokens."""
    place, _, child = name.partition('.')
    if place.startswith('patch_embed'):
        return child == 'norm'
    block_child = child.partition('.')[2]
    return place in ('blocks3', 'blocks4') and block_child not in ('', 'pos_embed')


Seen = dict[str, list[list[Tensor]]]


def watch(model: nn.Module, wanted: list[str], seen: Seen) -> None:
    """Forward hooks that keep inputs and outputs, backward hooks that keep gradients."""
    for name in wanted:
        module = model.get_submodule(name)

        def forward(_, inputs: tuple, outputs: object, name: str = name) -> None:
            # What has no tensor yet (the scores of the first hourglass block) is left out.
            seen[name].append([t.detach().clone() for t in tensors((inputs, outputs))])

        def backward(_, to_inputs: tuple, of_outputs: tuple, name: str = name) -> None:
            kept = [t.detach().clone() for t in (*to_inputs, *of_outputs) if t is not None]
            seen[f'{name} backward'].append(kept)

        module.register_forward_hook(forward)
        module.register_full_backward_hook(backward)


def run(model: nn.Module, x: Tensor, wanted: list[str]) -> Seen:
    seen: Seen = defaultdict(list)
    watch(model, wanted, seen)
    loss_of(model(x.clone().requires_grad_())).backward()
    return seen


def as_rows(tensor: Tensor) -> Tensor:
    """Tokens as rows: officially output norms and window blocks have them as (B, H, W, C)."""
    return tensor.flatten(0, -2)


def in_any_order(tensor: Tensor) -> Tensor:
    """Tokens sorted by their first channel: those that hourglass blocks keep have no order."""
    order = tensor[..., :1].argsort(dim=1, stable=True)
    return tensor.take_along_dim(order, 1)


def compare(case: Case, name: str, got: list[list[Tensor]], want: list[list[Tensor]]) -> None:
    assert len(got) == len(want), f'{name} was called {len(got)} times, not {len(want)}'
    by_rows = name.startswith('norm')
    if 'window_size' in case.options and name.startswith('blocks3'):
        by_rows = in_tokens(case, name.removesuffix(' backward'))
    for ours, theirs in zip(got, want, strict=True):
        if case.hourglass and name.count('.') == 1 and name.startswith(('blocks3', 'blocks4')):
            # Our scores lie as the map does, and None stands for those that nobody needs.
            # The reference's last block of stage 3 pools them, ours are pooled before stage 4.
            ours = [
                pool_scores(o) if o.numel() > t.numel() else o
                for o, t in zip(ours, theirs, strict=False)
            ]
            theirs = [t.view_as(o) for o, t in zip(ours, theirs, strict=False)]
        elif case.hourglass and in_tokens(case, name.removesuffix(' backward')):
            ours, theirs = map(in_any_order, ours), map(in_any_order, theirs)
        if by_rows:
            assert {tensor.ndim for tensor in ours} == {3}, name
            ours, theirs = map(as_rows, ours), map(as_rows, theirs)
        try:
            assert_same(ours, theirs, 1e-8)
        except AssertionError as error:
            raise AssertionError(f'{name}: {error}') from None


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('name', EVERY)
def test_hooks_see_what_the_released_network_s_do(name: str, training: bool) -> None:
    """Values and gradients of every module, by name."""
    case = CASES[name]
    model = dense(case).double().train(training)
    x, wanted = sample(case), names(case)
    reference = reference_of(case, model)
    ours = run(model, x, wanted)
    if case.hourglass:
        # The reference asks its attention for scores too, beside the modules' calls.
        wanted = [
            name
            for name in wanted
            if not name.endswith('attn') or name.startswith(('blocks1', 'blocks2'))
        ]
    theirs = run(reference, x, wanted)
    assert len(theirs) == 2 * len(wanted)
    for module in wanted:
        compare(case, module, ours[module], theirs[module])
        if case.hourglass and module.count('.') == 1 and module.startswith(('blocks3', 'blocks4')):
            # Hooks give None for scores that nobody needs; whether anybody does is our choice.
            continue
        compare(
            case, f'{module} backward', ours[f'{module} backward'], theirs[f'{module} backward']
        )


def only(kind: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(kind)


@pytest.mark.parametrize('kind', ['blocks3.0', 'attn.qkv', 'mlp', 'norm1'])
@pytest.mark.parametrize('name', EVERY)
def test_one_hook_alone_sees_the_same(name: str, kind: str) -> None:
    """Without others that would make the rest of a block plain too."""
    case = CASES[name]
    model = dense(case).double().eval()
    reference, x = reference_of(case, model), sample(case)
    wanted = list(filter(only(kind), names(case)))
    assert wanted
    ours, theirs = run(model, x, wanted), run(reference, x, wanted)
    for module in wanted:
        compare(case, module, ours[module], theirs[module])


@pytest.mark.parametrize('name', EVERY)
def test_hooks_may_change_what_passes(name: str) -> None:
    """A forward pre-hook and a forward hook on each block and each MLP, in float32 inference."""
    case = CASES[name]
    model = dense(case).eval()
    reference, x = reference_of(case, model).double(), sample(case)
    with torch.no_grad():
        plain = model(x.float())
        for net in (model, reference):
            for module_name in names(case):
                if not module_name.endswith(('mlp', 'norm2', 'proj')):
                    continue
                module = net.get_submodule(module_name)
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.25,))
                module.register_forward_hook(lambda _, inputs, y: y + 0.1 * y.tanh())
        changed, want = model(x.float()), reference(x)
    assert_same(changed, want, 2e-4)
    assert max((a - b).abs().max() for a, b in zip(changed, plain, strict=True)) > 1e-2
