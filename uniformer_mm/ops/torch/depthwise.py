# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution out of PyTorch's own operators, in the fastest form of each device.

On the CPU (oneDNN, measured by ``tools/benchmark``):

* Channels last in float32 is the only form with a kernel made for depthwise 3-D convolution; half
  precision is upcast, because PyTorch's own half-precision 3-D kernel is 10 to 80 times
  slower and its 2-D kernel is fast only where the processor multiplies bfloat16.
* The input gradient is the same convolution with the kernel reversed: oneDNN's backward kernels
  treat a 3-D depthwise convolution as a dense one of 16 x 16 channels.
* The weight gradient of a 3-D convolution is a sum over frames of 2-D ones, for the same reason.

On a GPU PyTorch has a 3-D depthwise kernel for channels-first tensors only, so the tensor is
copied there and back. Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``, ``C`` channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..cpu import cpu_has_avx512, cpu_multiplies

CONV = {2: F.conv2d, 3: F.conv3d}
HALF = (torch.bfloat16, torch.float16)
# Positions that one call of oneDNN's 2-D weight gradient may add up, by the rank of the whole and
# whether the kernel has more than 3 columns. Its narrow form adds one position after the other,
# its wide one blocks of them, longer ones with AVX-512; more positions would double the error of
# what is replaced.
LONGEST_SUM = {(2, False): None, (2, True): 1024, (3, False): 196, (3, True): 1024}
AVX512_FACTOR = 4
# Elements up to which a map, on a CPU, is added after the convolution: it is in the cache, and the
# centre taps are not free to change.
SMALL = 1 << 19
MOST_PIECES = 16


def _compute_dtype(x: Tensor, rank: int) -> torch.dtype:
    """The dtype in which the convolution itself runs."""
    if x.device.type != 'cpu' or x.dtype not in HALF:
        return x.dtype
    native = rank == 2 and x.dtype is torch.bfloat16 and cpu_multiplies(x.dtype)
    return x.dtype if native else torch.float32


def _channels_first(x_BSC: Tensor, rank: int) -> Tensor:
    """A ``(B, C, S)`` view of the input, or a copy where only that form is fast."""
    x_BCS = x_BSC.movedim(-1, 1)
    return x_BCS.contiguous() if x_BSC.is_cuda and rank == 3 else x_BCS


def forward(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: bool,
    taps_KC: Tensor | None = None,
) -> Tensor:
    """Convolve. Shape: ``x_BSC -> y_BSC``, contiguous, in the dtype of the input.

    ``taps_KC``, here and below, is for the kernels; PyTorch reads the weight itself.
    """
    if not x_BSC.numel():
        return x_BSC.new_empty(x_BSC.shape)
    kernel = weight.shape[2:]
    rank = len(kernel)
    dtype = _compute_dtype(x_BSC, rank)
    # Adding one to the centre tap saves a pass over the map; in half precision the one would
    # swallow the tap.
    is_small = x_BSC.device.type == 'cpu' and x_BSC.numel() <= SMALL
    in_tap = residual and dtype not in HALF and not is_small
    taps = weight.to(dtype, copy=in_tap)
    if in_tap:
        taps[(slice(None), 0, *(k // 2 for k in kernel))] += 1
    y_BCS = CONV[rank](
        _channels_first(x_BSC.contiguous().to(dtype), rank),
        taps,
        None if bias is None else bias.to(dtype),
        padding=[k // 2 for k in kernel],
        groups=weight.shape[0],
    )
    y_BSC = y_BCS.movedim(1, -1).to(x_BSC.dtype).contiguous()
    return y_BSC.add_(x_BSC) if residual and not in_tap else y_BSC


def forward_and_copy(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    copy: str,
    dtype: torch.dtype,
    taps_KC: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``x + conv(x)``, and the input (``copy='x'``) or result (``'y'``) in another dtype."""
    y_BSC = forward(x_BSC, weight, bias, True)
    return y_BSC, {'x': x_BSC, 'y': y_BSC}[copy].to(dtype)


def input_grad(
    grad_BSC: Tensor, weight: Tensor, residual: bool, taps_KC: Tensor | None = None
) -> Tensor:
    """Gradient of the input. Shape: ``grad_BSC -> grad_BSC``."""
    return forward(grad_BSC, weight.flip(tuple(range(2, weight.ndim))), None, residual)


def _conv2d_weight_grad(
    grad_BHWC: Tensor, x_BHWC: Tensor, kernel: tuple[int, ...], rank: int = 2
) -> Tensor:
    """Gradient of ``(C, 1, kh, kw)`` taps; ``x_BHWC`` already has its zero rows around it."""
    B, H, W, channels = grad_BHWC.shape
    if not grad_BHWC.numel():
        return x_BHWC.new_zeros((channels, 1, *kernel))
    wide = kernel[1] > 3
    longest = LONGEST_SUM[rank, wide] or B * H * W
    if wide and cpu_has_avx512():
        longest *= AVX512_FACTOR
    samples = max(1, longest // (H * W))
    rows = max(longest // W, -(-H // MOST_PIECES))
    halo = kernel[0] - 1
    pieces = []
    for grad, x in zip(grad_BHWC.split(samples), x_BHWC.split(samples), strict=True):
        for first in range(0, H, rows):
            last = min(first + rows, H)
            _, piece, _ = torch.ops.aten.convolution_backward(
                grad[:, first:last].movedim(-1, 1),
                x[:, first : last + halo].movedim(-1, 1),
                x.new_empty((channels, 1, *kernel)),
                None,
                [1, 1],
                [0, kernel[1] // 2],
                [1, 1],
                False,
                [0, 0],
                channels,
                [False, True, False],
            )
            pieces.append(piece)
    return torch.stack(pieces).sum(0)


def _by_frame(grad_BTHWC: Tensor, x_BTHWC: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Gradient of ``(C, 1, kt, kh, kw)`` taps: each time tap pairs frames at one distance."""
    frames = x_BTHWC.shape[1]
    taps = []
    for tap in range(kernel[0]):
        shift = tap - kernel[0] // 2
        first, last = max(0, -shift), max(0, -shift, min(frames, frames - shift))
        pair = grad_BTHWC[:, first:last], x_BTHWC[:, first + shift : last + shift]
        taps.append(_conv2d_weight_grad(*(m.flatten(0, 1) for m in pair), kernel[1:], rank=3))
    return torch.stack(taps, dim=2)


def weight_grad(grad_BSC: Tensor, x_BSC: Tensor, kernel: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Gradients of taps ``(C, 1, *k)`` and bias ``(C,)``, in float32 (float64 for float64)."""
    rank, channels = len(kernel), x_BSC.shape[-1]
    dtype = torch.promote_types(x_BSC.dtype, torch.float32)
    grad_BSC, x_BSC = grad_BSC.contiguous(), x_BSC.contiguous()
    bias = grad_BSC.reshape(-1, channels).sum(0, dtype=dtype)
    if x_BSC.device.type == 'cpu':
        grad_BSC, x_BSC = grad_BSC.to(dtype), x_BSC.to(dtype)
        x_BSC = F.pad(x_BSC, (0, 0, 0, 0, kernel[-2] // 2, kernel[-2] // 2))
        by_rank = {2: _conv2d_weight_grad, 3: _by_frame}
        return by_rank[rank](grad_BSC, x_BSC, kernel).contiguous(), bias
    _, grad, _ = torch.ops.aten.convolution_backward(
        _channels_first(grad_BSC, rank),
        _channels_first(x_BSC, rank),
        x_BSC.new_empty((channels, 1, *kernel)),
        None,
        [1] * rank,
        [k // 2 for k in kernel],
        [1] * rank,
        False,
        [0] * rank,
        channels,
        [False, True, False],
    )
    return grad.to(dtype).contiguous(), bias
