# SPDX-License-Identifier: Apache-2.0
"""The operations on rows on the framework's own operators, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from uniformer_mm.ops import rows

from .rows_checks import (
    RowsCase,
    check_branch,
    check_gelu_grad,
    check_layer_norm,
    check_norm_linear,
)

CASES = [
    RowsCase(9, 5, 2),
    RowsCase(37, 20, 5, torch.bfloat16),
    RowsCase(75, 72, 30, torch.float32, samples=2),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: RowsCase) -> None:
    for axis in (0, 1):
        check_norm_linear(case, 'cpu', axis, 'framework')
    check_layer_norm(case, 'cpu', 'framework')
    check_gelu_grad(case, 'cpu', 'framework')
    for has_factors in (True, False):
        check_branch(case, 'cpu', 'framework', has_factors=has_factors)


@pytest.mark.parametrize('momentum', [0.3, None])
def test_running_statistics_move_as_the_framework_s(momentum: float | None) -> None:
    x = RowsCase(60, 8, 1).maps('cpu')[0].double()
    norm = torch.nn.BatchNorm1d(8, momentum=momentum).double()
    buffers = [buffer.clone() for buffer in norm.buffers()]
    for turn in range(2):
        norm(x + turn)
        rows.batch_standardise(
            x + turn, norm.eps, x.dtype, rows.Running(*buffers, momentum), backend='framework'
        )
    torch.testing.assert_close(buffers, list(norm.buffers()))


def test_no_rows() -> None:
    x = torch.zeros(0, 6)
    for function in (rows.column_sum, lambda t: rows.gelu_grad(t, t)[2]):
        assert torch.equal(function(x), torch.zeros(6))
    assert rows.batch_standardise(x, 0.1, x.dtype, None)[0].shape == x.shape
    assert rows.add_branch(x, x, torch.zeros(0))[0].shape == x.shape


def test_what_does_not_fit_is_named() -> None:
    x, vector = torch.zeros(6, 4), torch.zeros(4)
    with pytest.raises(ValueError, match=r'x_NC has shape \(2, 3, 4\) .* expected floating-point'):
        rows.column_sum(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r'h_NC has shape \(5, 4\) on cpu; expected that of grad'):
        rows.gelu_grad(x, torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r'bias_O has shape \(4,\); expected \(6,\)'):
        rows.fold(x, vector, None, None, x.dtype)
    with pytest.raises(ValueError, match=r'scale_C has shape \(6,\); expected \(4,\)'):
        rows.fold(x, torch.zeros(6), torch.zeros(6), vector, x.dtype)
    with pytest.raises(ValueError, match=r'factors_B has shape \(4,\); expected \(B,\) with B div'):
        rows.add_branch(x, x, torch.zeros(4))
    with pytest.raises(ValueError, match='momentum=None is the mean of all batches; it needs a'):
        rows.batch_standardise(x, 0.1, x.dtype, rows.Running(vector, vector, None, None))
    with pytest.raises(ValueError, match=r"backend='cudnn' is not known; use one of \['auto'"):
        rows.column_sum(x, backend='cudnn')
