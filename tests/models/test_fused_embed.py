# SPDX-License-Identifier: Apache-2.0
"""Patches of the formulas against an unfolded map, values and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from uniformer_mm.models.fused_embed import patches

# Input, kernel, stride, padding: of images and clips, some of which do not fill their patches.
CASES = {
    'image': ((2, 9, 10, 3), (4, 4), (4, 4), (0, 0)),
    'whole image': ((2, 8, 12, 3), (4, 4), (4, 4), (0, 0)),
    'stem of clips': ((2, 5, 9, 8, 3), (3, 4, 4), (2, 4, 4), (1, 0, 0)),
    'one frame': ((1, 1, 4, 4, 3), (3, 4, 4), (2, 4, 4), (1, 0, 0)),
    'between stages': ((2, 3, 5, 4, 6), (1, 2, 2), (1, 2, 2), (0, 0, 0)),
    'between stages, three frames': ((2, 4, 5, 4, 6), (3, 2, 2), (1, 2, 2), (1, 0, 0)),
}


def unfolded(x_BSC: Tensor, kernel: tuple, stride: tuple, padding: tuple) -> Tensor:
    """Each element by its index."""
    x_BSC = F.pad(x_BSC, (0, 0, *(p for size in reversed(padding) for p in (size, size))))
    spans = zip(x_BSC.shape[1:-1], kernel, stride, strict=True)
    counts = [(n - k) // s + 1 for n, k, s in spans]
    taps = [
        torch.stack([x_BSC[(slice(None), *at)] for at in positions], 1)
        for positions in (
            [
                tuple(i * s + t for i, s, t in zip(index, stride, tap, strict=True))
                for index in itertools.product(*map(range, counts))
            ]
            for tap in itertools.product(*map(range, kernel))
        )
    ]
    return torch.cat(taps, -1).view(x_BSC.shape[0], *counts, -1)


@pytest.mark.parametrize('channels_last', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_patches_and_their_gradient(case: str, channels_last: bool) -> None:
    shape, *geometry = CASES[case]
    draw = torch.Generator().manual_seed(0)
    x_BSC = torch.randn(shape, generator=draw, dtype=torch.float64)
    if not channels_last:
        x_BSC = x_BSC.movedim(-1, 1).contiguous().movedim(1, -1)
    results = []
    for form in (patches, unfolded):
        x = x_BSC.detach().requires_grad_()
        y = form(x, *geometry)
        cotangent = torch.randn(y.shape, generator=draw.manual_seed(1), dtype=y.dtype)
        (grad,) = torch.autograd.grad(y, x, cotangent)
        results.append((y, grad))
    (y, grad), (want, want_grad) = results
    assert torch.equal(y, want)
    torch.testing.assert_close(grad, want_grad, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize('case', CASES)
def test_patches_are_cast_in_their_copy(case: str) -> None:
    shape, *geometry = CASES[case]
    x_BSC = torch.randn(shape)
    with torch.autocast('cpu', torch.bfloat16):
        y = patches(x_BSC, *geometry)
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, unfolded(x_BSC.to(torch.bfloat16), *geometry))
