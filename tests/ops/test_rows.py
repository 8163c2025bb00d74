# SPDX-License-Identifier: Apache-2.0
"""The operations on rows on PyTorch's own operators."""

from __future__ import annotations

import pytest
import torch

from uniformer_mm.ops import rows

from .rows_checks import (
    RowsCase,
    check_branch,
    check_gelu_grad,
    check_norm_linear,
    operations,
)

CASES = [
    RowsCase(9, 5, 2),
    RowsCase(37, 20, 5, torch.bfloat16),
    RowsCase(75, 72, 30, torch.float32, samples=2),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: RowsCase) -> None:
    for axis in (0, 1):
        check_norm_linear(case, 'cpu', axis, 'pytorch')
    check_gelu_grad(case, 'cpu', 'pytorch')
    for has_factors in (True, False):
        check_branch(case, 'cpu', 'pytorch', has_factors=has_factors)


@pytest.mark.parametrize('momentum', [0.3, None])
def test_running_statistics_are_updated_as_pytorch_does(momentum: float | None) -> None:
    x = RowsCase(60, 8, 1).maps('cpu')[0].double()
    norm = torch.nn.BatchNorm1d(8, momentum=momentum).double()
    buffers = [buffer.clone() for buffer in norm.buffers()]
    for turn in range(2):
        norm(x + turn)
        operations.batch_standardise(
            x + turn, norm.eps, x.dtype, rows.Running(*buffers, momentum), backend='pytorch'
        )
    torch.testing.assert_close(buffers, list(norm.buffers()))


def test_all_weights_of_a_block_are_folded_as_one_by_one() -> None:
    (_, gamma, beta, weight, bias), _ = CASES[0].norm_linear('cpu')
    plain = rows.implementation(weight)
    matrices = [rows.Matrix(weight, bias, gamma, beta), rows.Matrix(weight[..., None, None], bias)]
    found, taps = plain.fold_all(matrices, [torch.zeros(4, 1, 3, 3)], torch.float32)
    expected = [plain.fold(weight, bias, *s, torch.float32) for s in ((gamma, beta), (None, None))]
    torch.testing.assert_close(found, expected)
    assert taps == [None]


def test_no_rows() -> None:
    x = torch.zeros(0, 6)
    for function in (operations.column_sum, lambda t: operations.gelu_grad(t, t)[2]):
        assert torch.equal(function(x), torch.zeros(6))
    assert operations.batch_standardise(x, 0.1, x.dtype, None)[0].shape == x.shape
    assert operations.add_branch(x, x, torch.zeros(0))[0].shape == x.shape


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match=r"backend='cudnn' is not known; use one of \['auto'"):
        rows.implementation(torch.zeros(6, 4), 'cudnn')
