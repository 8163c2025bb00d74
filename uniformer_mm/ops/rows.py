# SPDX-License-Identifier: Apache-2.0
"""Operations on the rows of a map that stand between matrix products.

Norms come without their affine parts: ``fold`` moves scale and shift into the product after the
norm, so that a training step keeps one map, ``xhat``, for the norm and the product. None of these
functions has a gradient; those whose names end in ``_grad`` are the gradients, for the formulas of
whole layers (``models/fused.py``). Arithmetic, statistics and sums are in float32 (float64 for
float64), each sum in a fixed order, so that a step repeats bit for bit.

Shapes: ``N`` rows (any number, also none), ``C`` channels, ``O`` outputs of a matrix, ``B``
samples, each of ``N / B`` successive rows. Tensors that are not contiguous are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from .dispatch import resolve

OPERATION = 'rows'


class Running(NamedTuple):
    """Running statistics that a BatchNorm moves.

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


class Product(NamedTuple):
    """A matrix and bias, and what is done to their input before, as :func:`fold` takes them.

    Implementations take the weight of a convolution too, whose axes after the second have length 1.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    running: RunningNorm | None = None


def implementation(x: Tensor, backend: str = 'auto') -> ModuleType:
    """The module whose functions run for ``x``: same names and arguments as here.

    Args:
        x: A map; or weights, whose dtype may be another than that of the maps.
        backend: ``'auto'``, or a name of the rows in ``dispatch.BACKENDS``.

    Raises:
        ValueError: The backend is not known or cannot run here.
    """
    return resolve(OPERATION, backend, x.device, x.dtype)


def _check_rows(**tensors: Tensor | None) -> None:
    """All tensors have the shape of the first, ``(N, C)``, and its device."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, x = next(iter(given.items()))
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(
            f'{first} has shape {tuple(x.shape)} and dtype {x.dtype}; expected floating-point '
            'rows of channels (N, C).'
        )
    for name, tensor in given.items():
        if tensor.shape != x.shape or tensor.device != x.device:
            raise ValueError(
                f'{name} has shape {tuple(tensor.shape)} on {tensor.device}; expected that of '
                f'{first}, {tuple(x.shape)} on {x.device}.'
            )


def _check_vector(length: int, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != (length,):
            raise ValueError(f'{name} has shape {tuple(tensor.shape)}; expected ({length},).')


def _check_factors(x: Tensor, factors_B: Tensor | None) -> None:
    if factors_B is None:
        return
    if factors_B.ndim != 1 or (len(x) % len(factors_B) if len(factors_B) else len(x)):
        raise ValueError(
            f'factors_B has shape {tuple(factors_B.shape)}; expected (B,) with B dividing the '
            f'{len(x)} rows.'
        )


def layer_standardise(
    x_NC: Tensor, eps: float, dtype: torch.dtype, *, backend: str = 'auto'
) -> tuple[Tensor, Tensor]:
    """LayerNorm without its affine part.

    Args:
        x_NC: Rows.
        eps: Added to the variance.
        dtype: Of the result.
        backend: As for :func:`implementation`.

    Returns:
        ``xhat_NC`` in ``dtype`` and the inverse deviations ``rstd_N``.
    """
    _check_rows(x_NC=x_NC)
    return implementation(x_NC, backend).layer_standardise(x_NC, eps, dtype)


def layer_standardise_grad(
    grad_NC: Tensor,
    xhat_NC: Tensor,
    rstd_N: Tensor,
    stream_NC: Tensor | None,
    dtype: torch.dtype,
    *,
    backend: str = 'auto',
) -> Tensor:
    """Gradient of :func:`layer_standardise`, added to another gradient of its input.

    Args:
        grad_NC: Gradient of ``xhat_NC``.
        xhat_NC: As it was returned.
        rstd_N: As it was returned.
        stream_NC: Added to the result, or None.
        dtype: Of the result.
        backend: As for :func:`implementation`.

    Returns:
        ``x_grad_NC``.
    """
    _check_rows(grad_NC=grad_NC, xhat_NC=xhat_NC, stream_NC=stream_NC)
    _check_vector(len(grad_NC), rstd_N=rstd_N)
    module = implementation(grad_NC, backend)
    return module.layer_standardise_grad(grad_NC, xhat_NC, rstd_N, stream_NC, dtype)


def layer_norm(
    x_NC: Tensor,
    gamma_C: Tensor,
    beta_C: Tensor,
    eps: float,
    dtype: torch.dtype,
    *,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm with its affine part, where no product follows into which that could go.

    Args:
        x_NC: Rows.
        gamma_C: Scale.
        beta_C: Shift.
        eps: Added to the variance.
        dtype: Of the result.
        backend: As for :func:`implementation`.

    Returns:
        ``y_NC`` in ``dtype``, the means ``mean_N`` and the inverse deviations ``rstd_N``.
    """
    _check_rows(x_NC=x_NC)
    _check_vector(x_NC.shape[1], gamma_C=gamma_C, beta_C=beta_C)
    return implementation(x_NC, backend).layer_norm(x_NC, gamma_C, beta_C, eps, dtype)


def layer_norm_grad(
    grad_NC: Tensor,
    x_NC: Tensor,
    mean_N: Tensor,
    rstd_N: Tensor,
    gamma_C: Tensor,
    *,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`layer_norm`.

    Args:
        grad_NC: Gradient of ``y_NC``.
        x_NC: As it was given.
        mean_N: As it was returned.
        rstd_N: As it was returned.
        gamma_C: As it was given.
        backend: As for :func:`implementation`.

    Returns:
        ``x_grad_NC`` in the dtype of ``x_NC``, and ``affine_grad_2C``, the gradients of gamma and
        beta, in float32 (float64 for float64).
    """
    _check_rows(grad_NC=grad_NC, x_NC=x_NC)
    _check_vector(len(grad_NC), mean_N=mean_N, rstd_N=rstd_N)
    _check_vector(grad_NC.shape[1], gamma_C=gamma_C)
    module = implementation(grad_NC, backend)
    return module.layer_norm_grad(grad_NC, x_NC, mean_N, rstd_N, gamma_C)


def batch_standardise(
    x_NC: Tensor, eps: float, dtype: torch.dtype, running: Running | None, *, backend: str = 'auto'
) -> tuple[Tensor, Tensor]:
    """BatchNorm with the statistics of the batch, without its affine part.

    Args:
        x_NC: Rows.
        eps: Added to the variance.
        dtype: Of the result.
        running: Statistics to move, or None.
        backend: As for :func:`implementation`.

    Returns:
        ``xhat_NC`` in ``dtype`` and the inverse deviations ``rstd_C``.
    """
    _check_rows(x_NC=x_NC)
    if running is not None:
        _check_vector(x_NC.shape[1], mean=running.mean, var=running.var)
        if running.momentum is None and running.count is None:
            raise ValueError('momentum=None is the mean of all batches; it needs a count of them.')
    return implementation(x_NC, backend).batch_standardise(x_NC, eps, dtype, running)


def batch_standardise_grad(
    grad_NC: Tensor,
    xhat_NC: Tensor,
    rstd_C: Tensor,
    scale_C: Tensor,
    affine_grad_2C: Tensor,
    stream_NC: Tensor | None,
    dtype: torch.dtype,
    *,
    backend: str = 'auto',
) -> Tensor:
    """Gradient of :func:`batch_standardise`, added to another gradient of its input.

    The sums over all rows of ``grad`` and ``grad * xhat``, which it needs, are not taken again: a
    product with ``weight * scale`` made ``grad``, so they are ``scale`` times the gradients of the
    folded shift and scale.

    Args:
        grad_NC: Gradient of ``xhat_NC``.
        xhat_NC: As it was returned.
        rstd_C: As it was returned.
        scale_C: The scale that was folded into the product after the norm.
        affine_grad_2C: Gradients of scale and shift from :func:`fold_grad`.
        stream_NC: Added to the result, or None.
        dtype: Of the result.
        backend: As for :func:`implementation`.

    Returns:
        ``x_grad_NC``.
    """
    _check_rows(grad_NC=grad_NC, xhat_NC=xhat_NC, stream_NC=stream_NC)
    scale_grad_C, shift_grad_C = affine_grad_2C
    vectors = {'scale_grad_C': scale_grad_C, 'shift_grad_C': shift_grad_C}
    _check_vector(grad_NC.shape[1], rstd_C=rstd_C, scale_C=scale_C, **vectors)
    module = implementation(grad_NC, backend)
    return module.batch_standardise_grad(
        grad_NC, xhat_NC, rstd_C, scale_C, affine_grad_2C, stream_NC, dtype
    )


def fold(
    weight_OC: Tensor,
    bias_O: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    dtype: torch.dtype,
    running: RunningNorm | None = None,
    *,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """The matrix and bias that first scale and shift their input.

    Args:
        weight_OC: Matrix.
        bias_O: Its bias.
        scale_C: Scale; None casts only.
        shift_C: Shift, None if ``scale_C`` is.
        dtype: Of the results.
        running: Statistics with which the input is normalised before, or None.
        backend: As for :func:`implementation`.

    Returns:
        ``weight * scale`` and ``bias + weight @ shift``.
    """
    _check_rows(weight_OC=weight_OC)
    outputs, channels = weight_OC.shape
    _check_vector(outputs, bias_O=bias_O)
    _check_vector(channels, scale_C=scale_C, shift_C=shift_C)
    module = implementation(weight_OC, backend)
    return module.fold(weight_OC, bias_O, scale_C, shift_C, dtype, running)


def fold_all(
    products: Sequence[Product], dtype: torch.dtype, *, backend: str = 'auto'
) -> list[tuple[Tensor, Tensor]]:
    """:func:`fold` for many matrices of one dtype on one device, in one launch.

    Args:
        products: The arguments of each.
        dtype: Of the results, which share their memory.
        backend: As for :func:`implementation`.
    """
    for product in products:
        _check_rows(weight_OC=product.weight)
        _check_vector(len(product.weight), bias_O=product.bias)
        vectors = {'scale_C': product.scale, 'shift_C': product.shift}
        _check_vector(product.weight.shape[1], **vectors)
    module = implementation(products[0].weight, backend)
    return module.fold_all(products, dtype)


def transpose_all(weights_CK: Sequence[Tensor], *, backend: str = 'auto') -> list[Tensor]:
    """Contiguous transposes of many matrices of one dtype on one device, in one launch.

    Args:
        weights_CK: Matrices.
        backend: As for :func:`implementation`.

    Returns:
        ``taps_KC`` of each, which share their memory.
    """
    for weight_CK in weights_CK:
        _check_rows(weight_CK=weight_CK)
    return implementation(weights_CK[0], backend).transpose_all(weights_CK)


def tables(like: Tensor, *, backend: str = 'auto') -> tuple:
    """What launches of :func:`fold_all` and :func:`transpose_all` read beside the weights.

    Whoever replays launches keeps it for as long.

    Args:
        like: A tensor on the device.
        backend: As for :func:`implementation`.
    """
    return implementation(like, backend).tables()


def fold_grad(
    folded_grad_OC: Tensor,
    folded_bias_grad_O: Tensor,
    weight_OC: Tensor,
    scale_C: Tensor,
    shift_C: Tensor,
    *,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`fold`; that of the bias is ``folded_bias_grad_O`` itself.

    Args:
        folded_grad_OC: Gradient of the folded matrix.
        folded_bias_grad_O: Gradient of the folded bias.
        weight_OC: As for :func:`fold`.
        scale_C: As for :func:`fold`.
        shift_C: As for :func:`fold`.
        backend: As for :func:`implementation`.

    Returns:
        ``weight_grad_OC`` in the dtype of ``weight_OC`` and ``affine_grad_2C``, the gradients of
        scale and shift, in float32 (float64 for float64).
    """
    _check_rows(folded_grad_OC=folded_grad_OC, weight_OC=weight_OC)
    outputs, channels = weight_OC.shape
    _check_vector(outputs, folded_bias_grad_O=folded_bias_grad_O)
    _check_vector(channels, scale_C=scale_C, shift_C=shift_C)
    module = implementation(weight_OC, backend)
    return module.fold_grad(folded_grad_OC, folded_bias_grad_O, weight_OC, scale_C, shift_C)


def column_sum(x_NC: Tensor, *, backend: str = 'auto') -> Tensor:
    """Sum over the rows, ``(C,)``, in float32 (float64 for float64)."""
    _check_rows(x_NC=x_NC)
    return implementation(x_NC, backend).column_sum(x_NC)


def gelu_grad(
    grad_NC: Tensor, h_NC: Tensor, *, backend: str = 'auto'
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the exact (erf) GELU of ``h``, and what the products beside it need.

    Args:
        grad_NC: Gradient of ``gelu(h_NC)``; its memory may be used for the result.
        h_NC: Input of the GELU.
        backend: As for :func:`implementation`.

    Returns:
        ``gelu(h_NC)``, the gradient of ``h_NC``, and the sum of that gradient over the rows.
    """
    _check_rows(grad_NC=grad_NC, h_NC=h_NC)
    return implementation(h_NC, backend).gelu_grad(grad_NC, h_NC)


def add_branch(
    x_NC: Tensor,
    branch_NC: Tensor,
    factors_B: Tensor | None = None,
    copy: torch.dtype | None = None,
    *,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor | None]:
    """``x + branch``, the branch times one factor for each sample.

    Args:
        x_NC: The residual stream.
        branch_NC: What is added to it.
        factors_B: Factors, or None for 1.
        copy: A dtype in which to give the result a second time, or None.
        backend: As for :func:`implementation`.

    Returns:
        The sum in the dtype of ``x_NC``, and the copy or None.
    """
    _check_rows(x_NC=x_NC, branch_NC=branch_NC)
    _check_factors(x_NC, factors_B)
    return implementation(x_NC, backend).add_branch(x_NC, branch_NC, factors_B, copy)


def branch_grad(
    grad_NC: Tensor, factors_B: Tensor | None, dtype: torch.dtype, *, backend: str = 'auto'
) -> tuple[Tensor, Tensor]:
    """Gradient of the branch of :func:`add_branch`, and its sum over the rows.

    Args:
        grad_NC: Gradient of the sum.
        factors_B: As for :func:`add_branch`.
        dtype: Of the branch.
        backend: As for :func:`implementation`.

    Returns:
        ``grad_NC`` times the factors in ``dtype``, and the column sums ``(C,)`` in float32.
    """
    _check_rows(grad_NC=grad_NC)
    _check_factors(grad_NC, factors_B)
    return implementation(grad_NC, backend).branch_grad(grad_NC, factors_B, dtype)
