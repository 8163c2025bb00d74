# SPDX-License-Identifier: Apache-2.0
"""What fused blocks are made of: pure functions, forward and backward, without autograd.

``piece_forward(...) -> (result, saved)`` and ``piece_backward(gradient, saved, ...) -> gradients``.

* A norm is standardised without its affine part, which is folded into the matrix after it. The
  standardised map is all that is kept; the gradient of the norm is added to that of the residual
  stream in one kernel.
* BatchNorm's gradient needs two sums over all rows, which are the gradients of its scale and shift
  up to a factor, so they come out of the weight gradient and cost no pass.
* The hidden map of an MLP is computed again in the backward pass where that is the faster way.

Shapes: ``N`` rows of a map ``(B, *S, C)``, ``C`` channels, ``O`` and ``I`` output and input
channels of a matrix, ``H`` hidden units.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..ops import mlp, rows
from ..ops.autocast import HALF, autocast_dtype
from ..ops.dispatch import resolve, torch_version
from .fold import fold_grad, scale_outputs, scale_outputs_grad

LAYER, BATCH, RUNNING = 'layer', 'batch', 'running'
NO_SECOND_DERIVATIVE = (
    'fused blocks have no second derivative; set UNIFORMER_FAST=0, which runs plain PyTorch, for '
    'create_graph=True.'
)


# What a block keeps between its two passes.


def save(ctx: Any, kept: Sequence[tuple]) -> None:
    """Keep what the pieces saved, in one call, so that hooks and checkpointing see all of it."""
    ctx.kinds = [type(saved) for saved in kept]
    ctx.save_for_backward(*chain.from_iterable(kept))


def saved_by_pieces(ctx: Any) -> list:
    """What the pieces saved, in their order.

    Raises:
        RuntimeError: A second derivative is asked for.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(NO_SECOND_DERIVATIVE)
    tensors = iter(ctx.saved_tensors)
    return [kind(*islice(tensors, len(kind._fields))) for kind in ctx.kinds]


def run(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a fused block's Function; without autograd where nothing needs a gradient."""
    if torch.is_grad_enabled() and any(
        argument.requires_grad for argument in arguments if isinstance(argument, Tensor)
    ):
        return function.apply(*arguments)
    with torch.no_grad():
        return function.compute(_forget, False, *arguments)


def _forget(_: tuple) -> None:
    """Keep nothing."""


# Dtypes and rows.


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix multiplications of ``x``: autocast's, or its own."""
    return autocast_dtype(x) or x.dtype


def as_rows(x_BSC: Tensor) -> Tensor:
    """The positions of a map as rows of channels."""
    return x_BSC.reshape(-1, x_BSC.shape[-1])


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``, which takes PyTorch as long as a launch even if there is nothing to do."""
    return x if x.dtype is dtype else x.to(dtype)


@functools.cache
def _matmul_can_widen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a matmul of half-precision matrices can give float32 (torch 2.8, CUDA)."""
    return (
        device.type == 'cuda'
        and bool(torch.version.cuda)
        and dtype in HALF
        and torch_version() >= (2, 8)
    )


def matrix_grad(grad_NO: Tensor, x_NI: Tensor) -> Tensor:
    """Gradient ``(O, I)`` of a matrix, in float32 where that costs nothing."""
    if _matmul_can_widen(x_NI.device, x_NI.dtype):
        return torch.mm(grad_NO.t(), x_NI, out_dtype=torch.float32)
    return grad_NO.t() @ x_NI


# Stochastic depth.


def drop_factors(drop_path: nn.Module, x: Tensor, samples: int) -> Tensor | None:
    """One factor for each of ``samples``, 0 or ``1 / (1 - rate)``; None where nothing is dropped.

    Draws what the layer itself would draw, in the dtype of the branch.
    """
    if not (drop_path.training and drop_path.rate):
        return None
    keep = 1 - drop_path.rate
    factors = torch.empty(samples, dtype=matmul_dtype(x), device=x.device)
    return factors.bernoulli_(keep).div_(keep)


# Depthwise convolution.


class SavedDepthwise(NamedTuple):
    """The input, the weight, and the weight as ``taps_KC`` if kernels read it so."""

    x: Tensor
    weight: Tensor
    taps: Tensor | None


def depthwise_forward(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor,
    taps: Tensor | None,
    residual: bool = False,
    dtype: torch.dtype | None = None,
    copy: str = '',
) -> tuple[Tensor, Tensor | None, SavedDepthwise]:
    """``conv(x)``, or ``x + conv(x)``.

    Args:
        x_BSC: A map.
        weight: ``(C, 1, *k)``.
        bias: ``(C,)``.
        taps: The weight as :func:`fold_weights` transposes it.
        residual: Whether the map is added.
        dtype: Of the copy, if it is another than that of the map.
        copy: ``'x'`` saves the input in ``dtype``, ``'y'`` also gives the sum in ``dtype``.

    Returns:
        The result in the dtype of the map, its copy or None, and what is saved.
    """
    x_BSC = x_BSC.contiguous()
    module = resolve('depthwise_conv', 'auto', x_BSC.device, x_BSC.dtype, tuple(weight.shape[2:]))
    if not copy or dtype is x_BSC.dtype:
        y_BSC = module.forward(x_BSC, weight, bias, residual, taps_KC=taps)
        return y_BSC, None, SavedDepthwise(x_BSC, weight, taps)
    y_BSC, copy_BSC = module.forward_and_copy(x_BSC, weight, bias, copy, dtype, taps_KC=taps)
    if copy == 'x':
        return y_BSC, None, SavedDepthwise(copy_BSC, weight, taps)
    return y_BSC, copy_BSC, SavedDepthwise(x_BSC, weight, taps)


def depthwise_backward(
    grad_BSC: Tensor,
    saved: SavedDepthwise,
    residual: bool = False,
    needs_x: bool = True,
    needs_weight: bool = True,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias."""
    x_BSC, weight, taps = saved
    kernel = tuple(weight.shape[2:])
    module = resolve('depthwise_conv', 'auto', x_BSC.device, grad_BSC.dtype, kernel)
    x_grad = weight_grad = bias_grad = None
    if needs_x:
        x_grad = module.input_grad(grad_BSC, weight, residual, taps_KC=taps)
    if needs_weight:
        weight_grad, bias_grad = module.weight_grad(grad_BSC, x_BSC, kernel)
        weight_grad, bias_grad = cast(weight_grad, weight.dtype), cast(bias_grad, weight.dtype)
    return x_grad, weight_grad, bias_grad


# Norms.


class Norm(NamedTuple):
    """A norm in this pass.

    Attributes:
        kind: ``'layer'``, ``'batch'`` (statistics of the batch) or ``'running'``.
        eps: Added to the variance.
        running: Statistics that it updates, or with which it normalises; else None.
    """

    kind: str
    eps: float
    running: rows.Running | rows.RunningNorm | None = None


def norm_of(norm: nn.Module, x: Tensor) -> Norm:
    """What a LayerNorm or BatchNorm does with the map ``x``.

    Raises:
        ValueError: Statistics of a batch that has one value per channel.
    """
    if isinstance(norm, nn.LayerNorm):
        return Norm(LAYER, norm.eps)
    if not norm.training:
        return Norm(
            RUNNING, norm.eps, rows.RunningNorm(norm.running_mean, norm.running_var, norm.eps)
        )
    if x.numel() == x.shape[1]:
        raise ValueError(
            f'Expected more than 1 value per channel when training, got input size {tuple(x.shape)}'
        )
    if not norm.track_running_stats:
        return Norm(BATCH, norm.eps)
    counter = norm.num_batches_tracked
    running = rows.Running(norm.running_mean, norm.running_var, counter, norm.momentum)
    return Norm(BATCH, norm.eps, running)


class Affine(NamedTuple):
    """A norm's affine part and the matrix after it: what gradients of both need.

    Attributes:
        weight: Of the layer after the norm.
        bias: Its bias.
        gamma: Scale of the norm.
        beta: Shift of the norm.
        mean: Running mean at the time of the pass, of a norm of kind ``'running'``; else None.
        var: Running variance, likewise.
    """

    weight: Tensor
    bias: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor | None = None
    var: Tensor | None = None


def affine_of(
    norm: Norm, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, keeps: bool
) -> Affine:
    """What is saved of a norm and the layer after it."""
    if keeps and norm.kind == RUNNING:
        # Copies: a pass in training may update them before the backward pass of this one.
        return Affine(
            weight, bias, gamma, beta, norm.running.mean.clone(), norm.running.var.clone()
        )
    return Affine(weight, bias, gamma, beta)


def fold_norm_backward(
    norm: Norm, affine: Affine, matrix_grad_OC: Tensor, bias_grad_O: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the layer's weight, and of gamma and beta as one ``(2, C)``.

    Args:
        norm: The norm.
        affine: As it was folded.
        matrix_grad_OC: Gradient of the folded matrix.
        bias_grad_O: Gradient of the folded bias, as far as the norm's shift reaches.
    """
    weight, _, gamma, beta, mean, var = affine
    if norm.kind != RUNNING:
        return fold_grad(matrix_grad_OC, bias_grad_O, weight, gamma, beta)
    rstd = torch.rsqrt(var + norm.eps)
    scale = gamma * rstd
    weight_grad, grads = fold_grad(matrix_grad_OC, bias_grad_O, weight, scale, beta - mean * scale)
    scale_grad, shift_grad = grads
    return weight_grad, torch.stack([(scale_grad - shift_grad * mean) * rstd, shift_grad])


def standardise(
    norm: Norm, x_NC: Tensor, copy_NC: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """The standardised map in ``dtype``, with running statistics the map itself, and ``rstd``."""
    kernels = rows.implementation(x_NC)
    if norm.kind == LAYER:
        return kernels.layer_standardise(x_NC, norm.eps, dtype)
    if norm.kind == BATCH:
        return kernels.batch_standardise(x_NC, norm.eps, dtype, norm.running)
    return cast(x_NC, dtype) if copy_NC is None else copy_NC, None


def standardise_backward(
    norm: Norm,
    grad_NC: Tensor,
    xhat_NC: Tensor,
    rstd: Tensor | None,
    gamma: Tensor,
    affine_grad_2C: Tensor,
    stream_NC: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Gradient of the norm's input in ``dtype``, added to that of the residual stream."""
    kernels = rows.implementation(xhat_NC)
    if norm.kind == LAYER:
        return kernels.layer_standardise_grad(grad_NC, xhat_NC, rstd, stream_NC, dtype)
    if norm.kind == BATCH:
        return kernels.batch_standardise_grad(
            grad_NC, xhat_NC, rstd, gamma, affine_grad_2C, stream_NC, dtype
        )
    if stream_NC is None:
        return cast(grad_NC, dtype)
    return kernels.add_branch(stream_NC, grad_NC)[0]


# Weights, cast and folded in each pass from what the parameters hold then.


class Folded(NamedTuple):
    """A matrix and a bias in the dtype of matrix multiplications."""

    matrix: Tensor
    bias: Tensor


def norm_matrix(norm: Norm, module: nn.Module, layer: nn.Module) -> rows.Matrix:
    """A linear layer and the affine part of the norm before it."""
    running = norm.running if norm.kind == RUNNING else None
    return rows.Matrix(layer.weight, layer.bias, module.weight, module.bias, running)


def branch_matrix(layer: nn.Module, gamma: Tensor | None = None) -> rows.Matrix:
    """A linear layer and the scale of the branch that it ends, or None."""
    if gamma is None:
        return rows.Matrix(layer.weight, layer.bias)
    return rows.Matrix(*scale_outputs(layer.weight, layer.bias, gamma))


def fold_weights(
    matrices: Sequence[rows.Matrix], convs: Sequence[nn.Module], dtype: torch.dtype
) -> tuple[list[Folded], list[Tensor | None]]:
    """All matrices of a block, and the weights of depthwise convolutions as ``taps_KC``."""
    kernels = rows.implementation(convs[0].weight)
    folded, taps = kernels.fold_all(matrices, [conv.weight for conv in convs], dtype)
    return [Folded(*pair) for pair in folded], taps


# A norm and the linear layer after it.


class SavedNormLinear(NamedTuple):
    """The standardised map, its inverse deviations, the folded matrix."""

    xhat: Tensor
    rstd: Tensor | None
    matrix: Tensor


class Arrangement(NamedTuple):
    """Another order of the rows between a norm and the linear layer after it.

    Attributes:
        split: From the rows of a map to that order, of which some may be zeros.
        join: Back, without these; each is the gradient of the other.
        padding: Indices of the rows of zeros, or None.
    """

    split: Callable[[Tensor], Tensor]
    join: Callable[[Tensor], Tensor]
    padding: Tensor | None


def norm_linear_forward(
    x_NC: Tensor,
    copy_NC: Tensor | None,
    norm: Norm,
    folded: Folded,
    own_bias: Tensor,
    order: Arrangement | None = None,
) -> tuple[Tensor, SavedNormLinear]:
    """``layer(norm(x))``.

    Args:
        x_NC: The residual stream.
        copy_NC: The stream in the dtype of the matrix, if it exists.
        norm: The norm.
        folded: Its affine part and the layer.
        own_bias: Bias of the layer alone.
        order: Order of the result's rows, if it is another. Its zeros stand behind the norm, whose
            shift does not reach them.
    """
    matrix_OC, bias_O = folded
    xhat_NC, rstd = standardise(norm, x_NC, copy_NC, matrix_OC.dtype)
    ordered_NC = xhat_NC if order is None else order.split(xhat_NC)
    y_NO = F.linear(ordered_NC, matrix_OC, bias_O)
    if order is not None and order.padding is not None:
        y_NO[order.padding] = cast(own_bias, matrix_OC.dtype)
    return y_NO, SavedNormLinear(xhat_NC, rstd, matrix_OC)


def norm_linear_backward(
    grad_NO: Tensor,
    stream_NC: Tensor | None,
    saved: SavedNormLinear,
    norm: Norm,
    affine: Affine,
    dtype: torch.dtype,
    order: Arrangement | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The gradient of the stream in ``dtype``, and those of weight, bias, gamma and beta."""
    xhat_NC, rstd, matrix_OC = saved
    kernels = rows.implementation(grad_NO)
    bias_grad = shifted = kernels.column_sum(grad_NO)
    ordered_NC = xhat_NC if order is None else order.split(xhat_NC)
    if order is not None and order.padding is not None:
        shifted = bias_grad - kernels.column_sum(grad_NO[order.padding])
    weight_grad, affine_grad = fold_norm_backward(
        norm, affine, matrix_grad(grad_NO, ordered_NC), shifted
    )
    xhat_grad = grad_NO @ matrix_OC
    if order is not None:
        xhat_grad = order.join(xhat_grad)
    x_grad = standardise_backward(
        norm, xhat_grad, xhat_NC, rstd, affine.gamma, affine_grad, stream_NC, dtype
    )
    gamma_grad, beta_grad = cast(affine_grad, affine.gamma.dtype).unbind()
    return x_grad, (weight_grad, cast(bias_grad, affine.bias.dtype), gamma_grad, beta_grad)


# A linear layer whose result is added to the residual stream.


class Linear(NamedTuple):
    """A linear layer and the scale of its branch, or None."""

    weight: Tensor
    bias: Tensor
    gamma: Tensor | None


def linear_grads(
    layer: Linear, matrix_grad_OI: Tensor, bias_grad_O: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of weight, bias and the branch's scale."""
    weight, bias, gamma = layer
    if gamma is None:
        weight_grad = cast(matrix_grad_OI, weight.dtype).view(weight.shape)
        return weight_grad, cast(bias_grad_O, bias.dtype), None
    grads = scale_outputs_grad(matrix_grad_OI, bias_grad_O, weight, bias, gamma)
    return tuple(cast(grad, t.dtype) for grad, t in zip(grads, layer, strict=True))


class SavedAddLinear(NamedTuple):
    """The layer's input, the factors of samples, and its matrix."""

    a: Tensor
    factors: Tensor | None
    matrix: Tensor


def add_linear_forward(
    x_NO: Tensor,
    a_NI: Tensor,
    folded: Folded,
    factors_B: Tensor | None,
    copies: bool = False,
) -> tuple[Tensor, Tensor | None, SavedAddLinear]:
    """``x + factors * gamma * layer(a)``.

    Args:
        x_NO: The residual stream.
        a_NI: Input of the layer.
        folded: The layer and the scale of the branch.
        factors_B: One for each sample, or None.
        copies: Whether the sum is also wanted in the dtype of the matrix.

    Returns:
        The sum in the dtype of the stream, its copy or None, and what is saved.
    """
    matrix_OI, bias_O = folded
    dtype = matrix_OI.dtype
    a_NI = cast(a_NI, dtype)
    branch_NO = F.linear(a_NI, matrix_OI, bias_O)
    copies = copies and dtype is not x_NO.dtype
    add_branch = rows.implementation(x_NO).add_branch
    y_NO, copy_NO = add_branch(x_NO, branch_NO, factors_B, dtype if copies else None)
    return y_NO, copy_NO, SavedAddLinear(a_NI, factors_B, matrix_OI)


def add_linear_backward(
    grad_NO: Tensor, saved: SavedAddLinear, layer: Linear, needs_layer: bool = True
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """The gradient of the layer's input, and those of weight, bias and the branch's scale.

    That of the residual stream is ``grad_NO`` itself.
    """
    a_NI, factors_B, matrix_OI = saved
    branch_grad = rows.implementation(grad_NO).branch_grad
    branch_NO, bias_grad = branch_grad(grad_NO, factors_B, a_NI.dtype)
    grads = (None,) * 3
    if needs_layer:
        grads = linear_grads(layer, matrix_grad(branch_NO, a_NI), bias_grad)
    return branch_NO @ matrix_OI, grads


# A norm and an MLP, added to the residual stream.


class SavedMlp(NamedTuple):
    """Standardised map, inverse deviations, input of the GELU or None, factors, matrices."""

    xhat: Tensor
    rstd: Tensor | None
    hidden: Tensor | None
    factors: Tensor | None
    matrix_1: Tensor
    bias_1: Tensor
    matrix_2: Tensor


def gelu_linear(x_NC: Tensor, w_HC: Tensor, b_H: Tensor) -> Tensor:
    """``gelu(x W + b)`` where nothing is kept for gradients. Shape: ``x_NC -> y_NH``.

    DIFFERS: in half precision the GELU is the matmul's own, in its tanh form. It takes sums that
    have not been rounded yet, so that its result is nearer to the exact GELU of the exact sums than
    the exact GELU of rounded sums is (docs/performance.md), and it costs no pass over the map. So
    it is where cuBLASLt takes the matmul; PyTorch rounds first where it does not.
    """
    if x_NC.dtype in HALF:
        return torch._addmm_activation(b_H, x_NC, w_HC.t(), use_gelu=True)
    return torch.ops.aten.gelu_(torch.addmm(b_H, x_NC, w_HC.t()))


def add_mlp_forward(
    x_NC: Tensor,
    copy_NC: Tensor | None,
    norm: Norm,
    first: Folded,
    second: Folded,
    factors_B: Tensor | None,
    keeps: bool,
) -> tuple[Tensor, SavedMlp | None]:
    """``x + factors * gamma * fc2(gelu(fc1(norm(x))))``.

    Args:
        x_NC: The residual stream.
        copy_NC: The stream in the dtype of the matrices, if it exists.
        norm: The norm.
        first: Its affine part and ``fc1``.
        second: ``fc2`` and the branch's scale.
        factors_B: One for each sample, or None.
        keeps: Whether gradients will be asked for.
    """
    (matrix_HC, bias_H), (matrix_OH, bias_O) = first, second
    kernels = mlp.implementation(x_NC, matrix_HC, matrix_OH)
    if not keeps and not kernels.KEEPS_HIDDEN and factors_B is None and norm.kind == RUNNING:
        return kernels.forward(x_NC, matrix_HC, bias_H, matrix_OH, bias_O, x_NC), None
    xhat_NC, rstd = standardise(norm, x_NC, copy_NC, matrix_HC.dtype)
    h_NH = None
    if not kernels.KEEPS_HIDDEN:
        branch_NO = kernels.forward(xhat_NC, matrix_HC, bias_H, matrix_OH, bias_O)
    else:
        if keeps:
            h_NH = F.linear(xhat_NC, matrix_HC, bias_H)
        gelu_NH = F.gelu(h_NH) if keeps else gelu_linear(xhat_NC, matrix_HC, bias_H)
        branch_NO = F.linear(gelu_NH, matrix_OH, bias_O)
        del gelu_NH
    y_NC, _ = rows.implementation(x_NC).add_branch(x_NC, branch_NO, factors_B)
    return y_NC, SavedMlp(xhat_NC, rstd, h_NH, factors_B, matrix_HC, bias_H, matrix_OH)


def add_mlp_backward(
    stream_NC: Tensor, saved: SavedMlp, norm: Norm, first: Affine, second: Linear
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """The gradient of the stream, those of ``fc1`` and the norm, and those of ``fc2``."""
    xhat_NC, rstd, h_NH, factors_B, matrix_HC, bias_H, matrix_OH = saved
    kernels = rows.implementation(xhat_NC)
    branch_grad = rows.implementation(stream_NC).branch_grad
    grad_NO, b_O_grad = branch_grad(stream_NC, factors_B, xhat_NC.dtype)
    if h_NH is None:
        recompute = mlp.implementation(xhat_NC, matrix_HC, matrix_OH)
        inputs = grad_NO, xhat_NC, matrix_HC, bias_H, matrix_OH
        w_HC_grad, b_H_grad, w_OH_grad, _ = recompute.weight_grad(*inputs, False)
        xhat_grad = recompute.input_grad(*inputs)
    else:
        gelu_NH, h_grad_NH, b_H_grad = kernels.gelu_grad(grad_NO @ matrix_OH, h_NH)
        w_OH_grad = matrix_grad(grad_NO, gelu_NH)
        del gelu_NH
        w_HC_grad = matrix_grad(h_grad_NH, xhat_NC)
        xhat_grad = h_grad_NH @ matrix_HC
        del h_grad_NH
    w_HC_grad, affine_grad = fold_norm_backward(norm, first, w_HC_grad, b_H_grad)
    x_grad = standardise_backward(
        norm, xhat_grad, xhat_NC, rstd, first.gamma, affine_grad, stream_NC, stream_NC.dtype
    )
    gamma_grad, beta_grad = cast(affine_grad, first.gamma.dtype).unbind()
    first_grads = w_HC_grad, cast(b_H_grad, first.bias.dtype), gamma_grad, beta_grad
    return x_grad, first_grads, linear_grads(second, w_OH_grad, b_O_grad)
