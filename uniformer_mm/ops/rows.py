# SPDX-License-Identifier: Apache-2.0
"""Operations on the rows of a map that stand between matrix multiplications.

Norms come without their affine parts: ``fold`` moves scale and shift into the matrix after the
norm, so that a training step keeps one map, ``xhat``, for the norm and the matmul. None of these
functions has a gradient; those whose names end in ``_grad`` are the gradients, for the fused blocks
(``uniformer_mm/fast``). Arithmetic, statistics and sums are in float32 (float64 for float64), each
sum in a fixed order, so that a step repeats bit for bit.

Shapes: ``N`` rows (any number, also none), ``C`` channels, ``O`` outputs of a matrix, ``B``
samples, each of ``N / B`` successive rows. Tensors that are not contiguous are copied. An
implementation is a module with these functions:

* ``layer_standardise(x_NC, eps, dtype) -> xhat_NC, rstd_N``: LayerNorm without its affine part.
* ``layer_standardise_grad(grad_NC, xhat_NC, rstd_N, stream_NC, dtype) -> x_grad_NC``: its gradient,
  added to ``stream_NC``, another gradient of its input, or None.
* ``batch_standardise(x_NC, eps, dtype, running) -> xhat_NC, rstd_C``: BatchNorm with the statistics
  of the batch; updates a :class:`Running`, or None.
* ``batch_standardise_grad(grad_NC, xhat_NC, rstd_C, scale_C, affine_grad_2C, stream_NC, dtype)
  -> x_grad_NC``. The sums over all rows that it needs are not taken again: they are ``scale_C``,
  which was folded into the matrix after the norm, times the gradients from ``fold_grad``.
* ``fold(weight_OC, bias_O, scale_C, shift_C, dtype, running=None) -> matrix_OC, bias_O``: matrix
  and bias that first scale and shift their input, or only the casts for a scale of None; with a
  :class:`RunningNorm` scale and shift are those of a BatchNorm in evaluation.
* ``fold_all(matrices, convs, dtype) -> [(matrix_OC, bias_O), ...], [taps_KC, ...]``: ``fold`` of
  several :class:`Matrix` and the transposed weights ``(C, 1, *k)`` of depthwise convolutions, in
  one launch for each four of the ones and two of the others; the transposes are None where the
  convolution reads the weights themselves.
* ``fold_grad(matrix_grad_OC, bias_grad_O, weight_OC, scale_C, shift_C) -> weight_grad_OC,
  affine_grad_2C``: gradients of weight, and of scale and shift in float32.
* ``column_sum(x_NC) -> sum_C`` in float32.
* ``gelu_grad(grad_NC, h_NC) -> gelu_NC, h_grad_NC, h_grad_sum_C``: exact (erf) GELU of ``h``, its
  gradient, for which the memory of ``grad`` may be used, and the column sum of that.
* ``add_branch(x_NC, branch_NC, factors_B=None, copy=None) -> y_NC, copy_NC``: ``x + branch``, the
  branch times one factor per sample; in the dtype of ``x``, and again in the dtype ``copy``.
* ``branch_grad(grad_NC, factors_B, dtype) -> branch_grad_NC, sum_C``: gradient of that branch in
  ``dtype`` and its column sum.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from .dispatch import resolve

OPERATION = 'rows'


class Running(NamedTuple):
    """Running statistics that a BatchNorm updates.

    Attributes:
        mean: Running mean ``(C,)``.
        var: Running (unbiased) variance ``(C,)``.
        count: Batches seen, an integer scalar that is counted up; None for no counter.
        momentum: Share of the new statistics; None for the mean of all batches, which needs the
            counter.
    """

    mean: Tensor
    var: Tensor
    count: Tensor | None
    momentum: float | None


class RunningNorm(NamedTuple):
    """Statistics with which a BatchNorm in evaluation normalises."""

    mean: Tensor
    var: Tensor
    eps: float


class Matrix(NamedTuple):
    """What ``fold`` takes; axes of the weight after the second have length 1."""

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    running: RunningNorm | None = None


def implementation(x: Tensor, backend: str = 'auto') -> ModuleType:
    """The module whose functions run for ``x``.

    Args:
        x: A map; or weights, whose dtype may be another than that of the maps.
        backend: ``'auto'``, or a name of the rows in ``dispatch.BACKENDS``.

    Raises:
        ValueError: The backend is not known or cannot run here.
    """
    return resolve(OPERATION, backend, x.device, x.dtype)
