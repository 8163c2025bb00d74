# SPDX-License-Identifier: Apache-2.0
"""All configs as networks: what the file's name says is what gets built, to the last parameter."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from uniformer_mm.models.arch import ARCHS
from uniformer_mm.models.uniformer import UniFormer

from .leaves import EXTRAS, LEAVES, OWNED, OWNERS, TRAINED, load, model, stages
from .official import TRAININGS

SIZES = {s: s for s in ('xxs', 'xs')} | {
    't': 'tiny', 's': 'small', 's_plus': 'small_plus', 'b': 'base', 'l': 'large',
}  # fmt: skip
# Each row measured once: test configs of one training differ in attention only.
MEASURED = {
    (r.measured.network, r.arch, r.row.attention, r.measured.input): leaf
    for leaf, r in OWNERS.items()
    if leaf in LEAVES
}


def network(leaf: str) -> nn.Module:
    """The part of a network whose parameters and FLOPs are known."""
    whole = model(leaf)
    return whole if OWNERS[leaf].measured.network != 'backbone' else whole.backbone


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize('leaf', LEAVES)
def test_builds_in_its_toolbox(leaf):
    backbone = model(leaf).backbone
    assert isinstance(backbone, UniFormer)
    assert backbone.ndim == (3 if leaf.startswith('video/') else 2)


@pytest.mark.parametrize('leaf', [*OWNED, *EXTRAS])
def test_file_name_tells_the_arch(leaf):
    name = re.search(r'uniformer_(xxs|xs|t|s_plus|s|b|l)(_ls)?(_tl)?(_dim64)?(?=[_.])', leaf)
    size, *suffixes = name.groups(default='')
    arch = SIZES[size] + ''.join(suffixes)
    if arch == 'large':
        arch = 'large_ls_tl'  # there is no other L
    if leaf in OWNERS:
        assert arch == OWNERS[leaf].arch
    assert load(leaf).model.backbone.arch == arch
    blocks = stages(model(leaf).backbone)
    assert tuple(map(len, blocks)) == ARCHS[arch].depths
    assert tuple(stage[0].norm1.weight.shape[0] for stage in blocks) == ARCHS[arch].dims
    for block in (*blocks[2], *blocks[3]):
        assert block.attn.head_dim == ARCHS[arch].head_dim


HOURGLASS = [leaf for leaf in OWNED if OWNERS[leaf].arch in ('xxs', 'xs')]


@pytest.mark.parametrize('leaf', HOURGLASS)
def test_light_networks_keep_half_of_the_tokens(leaf):
    built = stages(model(leaf).backbone)
    ratios = [block.keep_ratio for block in (*built[2], *built[3])]
    assert ratios == [1, *[0.5] * (len(ratios) - 1)]
    assert OWNERS[leaf].row.attention == ('' if leaf.startswith('cls/') else 'hourglass')
    scales = [block.gamma_1 is not None for stage in built for block in stage]
    assert set(scales) == {bool(OWNERS[leaf].row.layer_scale)}


@pytest.mark.parametrize('leaf', [leaf for leaf in OWNED if leaf not in HOURGLASS])
def test_attention_is_the_row_s_and_the_file_name_s(leaf):
    """Hybrid: every fourth block of stage 3 is global; stage 4 always is."""
    attention = OWNERS[leaf].row.attention or 'global'
    mode, window = re.fullmatch(r'(global|hybrid|window)(\d*)', attention).groups()
    depth = len(stages(model(leaf).backbone)[2])
    expected = [
        None if mode == 'global' or (mode == 'hybrid' and (i + 1) % 4 == 0) else int(window)
        for i in range(depth)
    ]
    built = stages(model(leaf).backbone)
    assert [block.window_size for block in built[2]] == expected
    assert all(block.window_size is None for block in built[3])
    if leaf.startswith('seg/'):
        suffix = re.search(r'_([hw])(\d+)\.py$', leaf)
        named = {'h': 'hybrid', 'w': 'window'}[suffix[1]] + suffix[2] if suffix else 'global'
        assert attention == named
    elif leaf.startswith('det/'):
        assert attention == 'hybrid14'


@pytest.mark.parametrize('leaf', TRAINED)
def test_stochastic_depth(leaf):
    row, blocks = OWNERS[leaf].id, stages(model(leaf).backbone)
    expected = np.linspace(0, TRAININGS[row].drop_path, sum(map(len, blocks)))
    rates = [block.drop_path.rate for stage in blocks for block in stage]
    np.testing.assert_allclose(rates, expected, atol=1e-7)


@pytest.mark.parametrize('leaf', OWNED)
def test_parameters_are_the_measured_ones_exactly(leaf):
    recipe = OWNERS[leaf]
    expected = recipe.measured.params
    if recipe.task == 'pose':
        # Only the last map is used here, so only its norm exists.
        expected -= 2 * sum(ARCHS[recipe.arch].dims[:3])
    if recipe.id.startswith('om/'):
        # Residual scales in every block, two of each.
        arch = ARCHS[recipe.arch]
        scales = 2 * sum(d * n for d, n in zip(arch.dims, arch.depths, strict=True))
        expected = arch.params + scales
    assert params(network(leaf)) == expected
    assert all(p.requires_grad for p in network(leaf).parameters())


@pytest.mark.parametrize('leaf', [leaf for leaf in OWNED if OWNERS[leaf].params])
def test_parameters_are_the_published_ones_to_their_precision(leaf):
    recipe = OWNERS[leaf]
    printed = recipe.params.rstrip('M')
    count = params(model(leaf))
    # The head of token labelling is in some published counts and not in others.
    dense = [p.numel() for name, p in model(leaf).named_parameters() if 'aux_head' in name]
    if recipe.id == 'om/s':
        count = ARCHS['small'].params  # a remark says so
    digits = len(printed.partition('.')[2])
    assert float(printed) in {round(c / 1e6, digits) for c in (count, count - sum(dense))}


@cache
def flops(leaf: str, *, whole: bool) -> float:
    """Multiply-adds / 1e9 of one input: convolutions, linear layers, attention products."""
    recipe, built = OWNERS[leaf], model(leaf)
    sides = [int(side) for side in recipe.measured.input.split('x')]
    if recipe.task == 'video':
        x = torch.zeros(1, 3, sides[0], sides[1], sides[1], device='meta')
    else:
        x = torch.zeros(1, 3, sides[0], sides[-1], device='meta')
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if recipe.task == 'seg' and whole:
            built.decode_head(built.extract_feat(x))
        elif whole:
            built.head(built.backbone(x))
        elif recipe.task == 'cls':
            built.head(built.extract_feat(x))
        elif recipe.task == 'video':
            built.cls_head(built.backbone(x))
        else:
            built.backbone(x)
    return counter.get_total_flops() / 2 / 1e9


@pytest.mark.parametrize('leaf', MEASURED.values())
def test_flops_are_the_measured_ones(leaf):
    assert flops(leaf, whole=False) == pytest.approx(OWNERS[leaf].measured.gmacs, rel=0.01)


@pytest.mark.parametrize(
    'leaf',
    [
        leaf
        for leaf in MEASURED.values()
        if OWNERS[leaf].task in ('seg', 'pose') and OWNERS[leaf].flops
    ],
)
def test_published_flops_are_those_of_the_whole_network_or_marked_as_wrong(leaf):
    recipe = OWNERS[leaf]
    printed = float(recipe.flops.rstrip('G'))
    assert (flops(leaf, whole=True) == pytest.approx(printed, rel=0.015)) != recipe.flops_are_wrong
