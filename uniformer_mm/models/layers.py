# SPDX-License-Identifier: Apache-2.0
"""Layers whose rank (2 for images, 3 for videos) is data, on channels-last maps.

Shapes: ``B`` batch, ``C`` channels, ``S`` the axes ``H W`` or ``T H W``, ``N`` tokens, ``O`` and
``I`` output and input channels of a matrix, ``K`` elements of a patch. Channels lie last in
memory, so 1x1 convolutions and patch embeddings are matrix products on the official weights.
Source: arXiv 2201.09450 section 3; Sense-X/UniFormer @52a0415
``image_classification/models/uniformer.py``, ``video_classification/slowfast/models/uniformer.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..ops import depthwise_conv
from . import fused, fused_embed
from .functional import (
    autocast_dtype,
    channels_last,
    fold_batch_norm,
    leaves_the_package,
    linear,
    mlp_in_pieces,
    patches,
    without_autocast,
)
from .fused_norm import BATCH, LAYER, RUNNING, runs
from .plan import has_rows, hooks_of
from .prepared import Weights, matrix_of, taps_of

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Those that formulas know. Others (mmcv's, mmengine's, wrapped ones) are called.
BATCH_NORM_TYPES = (*BATCH_NORM.values(), nn.SyncBatchNorm)

BLOCK_NORM_EPS = 1e-6
PATCH_NORM_EPS = 1e-5


def extent(rank: int, space: int, time: int) -> tuple[int, ...]:
    """Kernel, stride or padding of ``rank`` axes: ``time`` first if there is a time axis."""
    return (time,) * (rank - 2) + (space,) * 2


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis that keeps the dtype of its input, also under autocast.

    Autocast would return float32 on a GPU, which the matrix product after it casts back: two
    copies of the map. Statistics are float32 in any case.
    """

    def forward(self, x_BSC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Normalise each position over its channels; the result is in ``dtype`` if it is given."""
        dtype = dtype or x_BSC.dtype
        if runs(x_BSC) and holds_tensors(self):
            return fused_embed.layer_norm(self, x_BSC, dtype)
        x_BSC = x_BSC.to(dtype)
        if autocast_dtype(x_BSC) is None:
            return super().forward(x_BSC)
        weight, bias = self.weight.to(x_BSC.dtype), self.bias.to(x_BSC.dtype)
        with without_autocast(x_BSC):
            return F.layer_norm(x_BSC, self.normalized_shape, weight, bias, self.eps)


class Linear(nn.Linear):
    """A linear layer on channels-last maps. Shape: ``x_BSI -> y_BSO``."""

    def forward(self, x_BSI: Tensor) -> Tensor:
        """The product."""
        return product(self, x_BSI)


class _Pointwise:
    """A 1x1 convolution as a matrix product.

    Called, it is a convolution as any other, for whoever wraps or watches it: ``x_BIS -> y_BOS``.
    Blocks leave out the call (:func:`called`).
    """

    def forward(self, x_BIS: Tensor) -> Tensor:
        return product(self, x_BIS.movedim(1, -1)).movedim(-1, 1)


class Pointwise2d(_Pointwise, nn.Conv2d):
    """See :class:`_Pointwise`."""


class Pointwise3d(_Pointwise, nn.Conv3d):
    """See :class:`_Pointwise`."""


class _Depthwise:
    """A depthwise convolution of stride 1 that keeps the size.

    Called, it is a convolution as any other: ``x_BCS -> y_BCS``. Blocks leave out the call
    (:func:`convolved`).
    """

    def forward(self, x_BCS: Tensor) -> Tensor:
        if leaves_the_package():
            return super().forward(x_BCS)
        return depthwise_conv(x_BCS.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


class Depthwise2d(_Depthwise, nn.Conv2d):
    """See :class:`_Depthwise`."""


class Depthwise3d(_Depthwise, nn.Conv3d):
    """See :class:`_Depthwise`."""


PLAIN_TYPES = (Linear, Pointwise2d, Pointwise3d)
TENSOR_TYPES = (Tensor, nn.Parameter)
POINTWISE = {2: Pointwise2d, 3: Pointwise3d}
DEPTHWISE = {2: Depthwise2d, 3: Depthwise3d}
DEPTHWISE_TYPES = tuple(DEPTHWISE.values())
EMBED_TYPES = tuple(CONV.values())


def product(layer: nn.Module, x_BSI: Tensor) -> Tensor:
    """A plain layer on a channels-last map. Shape: ``x_BSI -> y_BSO``."""
    if fits(x_BSI, layer):
        return fused.linear(x_BSI, *matrix(layer))
    return linear(x_BSI, *matrix(layer))


def called(layer: nn.Module, x_BSI: Tensor, convolves: bool) -> Tensor:
    """Any layer on a channels-last map. Shape: ``x_BSI -> y_BSO``.

    Args:
        layer: Ours, or what somebody put in its place.
        x_BSI: A map.
        convolves: Whether the place is that of a 1x1 convolution, not of a linear layer.
    """
    if is_plain(layer):
        return product(layer, x_BSI)
    return channels_last(layer, x_BSI) if convolves else layer(x_BSI)


def is_own_depthwise(conv: nn.Module) -> bool:
    """Whether a depthwise convolution is ours as built, so that its taps may be used."""
    return type(conv) in DEPTHWISE_TYPES and not is_watched(conv)


def convolved(conv: nn.Module, x_BSC: Tensor, weights: Weights | None) -> Tensor:
    """``conv(x)`` for a depthwise convolution, which may be part of a formula."""
    taps = taps_of(weights, conv)
    if taps is not None:
        return fused.depthwise(taps, x_BSC)
    if is_own_depthwise(conv) and not leaves_the_package():
        return depthwise_conv(x_BSC, conv.weight, conv.bias)
    return channels_last(conv, x_BSC)


def add_convolved(
    conv: nn.Module, x_BSC: Tensor, weights: Weights | None, copies: bool = False
) -> tuple[Tensor, Tensor | None]:
    """``x + conv(x)``, one convolution with 1 added to its centre tap where dtypes allow.

    Args:
        conv: A depthwise convolution.
        x_BSC: The residual stream.
        weights: What formulas use, if this convolution is part of one.
        copies: Whether the result is also wanted in the dtype of matrix products.

    Returns:
        The sum in the dtype of ``x_BSC``, and the copy or None if there is none.
    """
    taps = taps_of(weights, conv)
    if taps is not None:
        return fused.add_depthwise(taps, x_BSC, copies)
    is_one = autocast_dtype(x_BSC) in (None, x_BSC.dtype) and not leaves_the_package()
    if is_one and is_own_depthwise(conv):
        return depthwise_conv(x_BSC, conv.weight, conv.bias, residual=True), None
    return x_BSC + convolved(conv, x_BSC, None), None


def pointwise(rank: int, in_channels: int, out_channels: int) -> nn.Module:
    """1x1 convolution with bias."""
    return POINTWISE[rank](in_channels, out_channels, 1)


def depthwise(rank: int, channels: int, kernel: int) -> nn.Module:
    """Depthwise convolution with an odd cubic kernel, stride 1, size kept, with bias."""
    return DEPTHWISE[rank](channels, channels, kernel, 1, kernel // 2, groups=channels)


def apply_norm(norm: nn.Module, x_BSC: Tensor, convolves: bool) -> Tensor:
    """Any norm on a channels-last map.

    Args:
        norm: Ours, or what somebody put in its place.
        x_BSC: A map.
        convolves: Whether the place is that of a BatchNorm, not of a LayerNorm.
    """
    return channels_last(norm, x_BSC) if convolves else norm(x_BSC)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm of whatever package."""
    return 'running_mean' in module._buffers and hasattr(module, 'num_batches_tracked')


def is_folded(norm: nn.Module, layer: nn.Module) -> bool:
    """Whether ``norm`` becomes part of the matrix of ``layer``: a BatchNorm in evaluation.

    One without running statistics takes the batch's in evaluation too.
    """
    is_fixed = type(norm) in BATCH_NORM_TYPES and not norm.training and not is_watched(norm)
    return is_fixed and norm.running_mean is not None and is_plain(layer)


def is_watched(layer: nn.Module) -> bool:
    """Whether somebody hooked a layer, or gave it its own ``forward``, and so expects a call."""
    return any(hooks_of(layer)) or 'forward' in vars(layer)


def is_plain(*layers: nn.Module) -> bool:
    """Whether layers are ours as built, so that their matrices may be used without calling them.

    Not so if somebody replaced one (LoRA, quantisation) or watches it with a hook.
    """
    # Loops, here and below: in each pass over the network generators would cost the host more.
    for layer in layers:  # noqa: SIM110
        if type(layer) not in PLAIN_TYPES or is_watched(layer):
            return False
    return True


def holds_tensors(layer: nn.Module) -> bool:
    """Whether weight and bias exist as ordinary tensors, not as sharded or quantised ones."""
    # Not through the module's own lookup, which costs as much as a launch for a whole network.
    for parameter in layer._parameters.values():  # noqa: SIM110
        if type(parameter) not in TENSOR_TYPES:
            return False
    return True


def fits(x_BSI: Tensor, layer: nn.Module) -> bool:
    """Whether a layer on a map like ``x_BSI`` can be part of a formula of ``fused.py``."""
    return runs(x_BSI) and type(layer) in PLAIN_TYPES and holds_tensors(layer)


def is_usable(layer: nn.Module) -> bool:
    """Whether formulas may use the weights of a linear layer where kernels run."""
    return is_plain(layer) and holds_tensors(layer)


def fused_kind(norm: nn.Module, x_BSC: Tensor, *layers: nn.Module) -> str | None:
    """How ``norm`` enters a formula with linear layers after it, where kernels run; None if not.

    SyncBatchNorm in training speaks to other processes; without rows to take statistics of, the
    framework has its own error.
    """
    for layer in layers:
        if not is_usable(layer):
            return None
    if is_watched(norm) or not holds_tensors(norm):
        return None
    if type(norm) is LayerNorm:
        return LAYER
    if type(norm) not in BATCH_NORM_TYPES or norm.running_mean is None:
        return None
    if not norm.training:
        return RUNNING
    is_own = type(norm) in BATCH_NORM.values() and has_rows(x_BSC)
    return BATCH if is_own else None


def wants_copy(norm: nn.Module) -> bool:
    """Whether a norm after the residual stream only scales it, so that its cast is what is used."""
    return type(norm) in BATCH_NORM_TYPES and not norm.training


def matrix(layer: nn.Module, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Matrix and bias of a plain layer, after a BatchNorm in evaluation if one is given."""
    weight_OI, bias_O = layer.weight.flatten(1), layer.bias
    return (weight_OI, bias_O) if norm is None else fold_batch_norm(norm, weight_OI, bias_O)


def normalised(
    norm: nn.Module,
    layer: nn.Module,
    x_BSI: Tensor,
    convolves: bool,
    copy_BSI: Tensor | None = None,
    weights: Weights | None = None,
) -> tuple[Tensor, Tensor]:
    """The residual stream as it is, and ``layer(norm(x))``, the norm folded in where possible.

    What follows must use the stream that is returned: through it the gradient of the norm comes
    together with that of the stream.

    Args:
        norm: A norm.
        layer: The layer after it.
        x_BSI: The residual stream.
        convolves: Whether this is the place of BatchNorm and 1x1 convolution.
        copy_BSI: The stream in the dtype of matrix products, if it exists.
        weights: What formulas use, if these layers are part of one.
    """
    folded = matrix_of(weights, layer)
    if folded is not None:
        return fused.norm_linear(norm, folded, x_BSI, copy_BSI)
    if is_folded(norm, layer):
        return x_BSI, linear(x_BSI, *matrix(layer, norm))
    return x_BSI, called(layer, apply_norm(norm, x_BSI, convolves), convolves)


class Mlp(nn.Module):
    """Two pointwise layers with an exact (erf) GELU between them, but see ``gelu_product``.

    Args:
        fc1: First layer, C to hidden.
        fc2: Second layer, hidden to C.
    """

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1 = fc1
        self.fc2 = fc2
        self.convolves = not isinstance(fc1, nn.Linear)

    def forward(self, x_BSC: Tensor, norm: nn.Module) -> Tensor:
        """Apply to ``norm(x_BSC)``. Shape: ``x_BSC -> y_BSC``."""
        if not is_plain(self.fc1, self.fc2):
            hidden = F.gelu(normalised(norm, self.fc1, x_BSC, self.convolves)[1])
            return called(self.fc2, hidden, self.convolves)
        folded = is_folded(norm, self.fc1)
        first, second = matrix(self.fc1, norm if folded else None), matrix(self.fc2)
        if not folded:
            x_BSC = apply_norm(norm, x_BSC, self.convolves)
        return mlp_in_pieces(x_BSC, *first, *second)


def is_own_mlp(mlp: nn.Module) -> bool:
    """Whether an MLP is ours and nobody watches it, so that its layers may be used instead."""
    return type(mlp) is Mlp and not is_watched(mlp)


class PatchEmbed(nn.Module):
    """Non-overlapping convolution (k = s in space) followed by LayerNorm with eps 1e-5.

    The spatial size is floored. In the 3-D stem time is halved by a kernel of 3 frames.

    Args:
        rank: 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Kernel in pixels (and frames).
        stride: Stride in pixels (and frames).
        padding: Zero padding in frames; none in space.
    """

    def __init__(
        self,
        rank: int,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.norm = LayerNorm(out_channels, eps=PATCH_NORM_EPS)
        self.proj = CONV[rank](in_channels, out_channels, kernel, stride, padding)

    def forward(self, x_BSC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Embed. Shape: ``x_BSC -> y_BSC`` at the reduced size, in ``dtype`` if it is given."""
        conv = self.proj
        if type(conv) not in EMBED_TYPES or is_watched(conv):
            return self.normalise(channels_last(conv, x_BSC), dtype)
        forms = (patches, linear)
        if runs(x_BSC) and holds_tensors(conv):
            forms = (fused_embed.patches, fused.linear)
        to_patches, multiply = forms
        x_BSK = to_patches(x_BSC, conv.kernel_size, conv.stride, conv.padding)
        x_BSC = multiply(x_BSK, conv.weight.movedim(1, -1).flatten(1), conv.bias)
        return self.normalise(x_BSC, dtype)

    def normalise(self, x_BSC: Tensor, dtype: torch.dtype | None) -> Tensor:
        """The norm of an embedded map, in ``dtype`` if it is given. Shape: ``x_BSC -> y_BSC``."""
        if isinstance(self.norm, LayerNorm):
            return self.norm(x_BSC, dtype)
        y_BSC = self.norm(x_BSC)
        return y_BSC if dtype is None else y_BSC.to(dtype)


class ConvEmbed(nn.Module):
    """Overlapping 3x3 convolutions with BatchNorm: the stem and downsampling of small_plus.

    Args:
        layers: The convolutions, norms and activations in order; their positions are part of
            the official state-dict keys (``proj.0``, ``proj.1``, ...).
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(*layers)

    def forward(self, x_BSC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Embed. Shape: ``x_BSC -> y_BSC`` at the reduced size, in ``dtype`` if it is given."""
        x_BSC = channels_last(self.proj, x_BSC).contiguous()
        return x_BSC if dtype is None else x_BSC.to(dtype)


def build_stem(rank: int, kind: str, in_channels: int, out_channels: int) -> nn.Module:
    """Stage 1's embedding: stride 4 in space, 2 in time.

    The 3-D convolutional stem is that of the official light video models.
    """
    if kind == 'patch':
        kernel, stride, padding = extent(rank, 4, 3), extent(rank, 4, 2), extent(rank, 0, 1)
        return PatchEmbed(rank, in_channels, out_channels, kernel, stride, padding)
    conv, norm = CONV[rank], BATCH_NORM[rank]
    half = out_channels // 2
    return ConvEmbed(
        conv(in_channels, half, 3, extent(rank, 2, 1), 1),
        norm(half),
        nn.GELU(),
        conv(half, out_channels, 3, extent(rank, 2, 2), 1),
        norm(out_channels),
    )


def build_downsample(
    rank: int, kind: str, in_channels: int, out_channels: int, kernel_t: int
) -> nn.Module:
    """The embedding of stages 2 to 4: stride 2 in space, 1 in time."""
    stride, pad_t = extent(rank, 2, 1), kernel_t // 2
    if kind == 'patch':
        kernel, padding = extent(rank, 2, kernel_t), extent(rank, 0, pad_t)
        return PatchEmbed(rank, in_channels, out_channels, kernel, stride, padding)
    kernel, padding = extent(rank, 3, kernel_t), extent(rank, 1, pad_t)
    conv = CONV[rank](in_channels, out_channels, kernel, stride, padding)
    return ConvEmbed(conv, BATCH_NORM[rank](out_channels))


class DropPath(nn.Module):
    """Stochastic depth: drops the branch of whole samples, or parts of them, rescales what stays.

    Args:
        rate: Probability of dropping, 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def factors(self, x: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor | None:
        """A factor for each place along ``axes``, size 1 along others; None where all are 1."""
        if not self.training or self.rate == 0:
            return None
        keep = 1 - self.rate
        shape = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
        return x.new_empty(shape).bernoulli_(keep) / keep

    def forward(self, x: Tensor) -> Tensor:
        """Drop in training; identity otherwise."""
        factors = self.factors(x)
        return x if factors is None else x * factors

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f'rate={self.rate:.3f}'


def drop_path_rates(depths: tuple[int, ...], rate: float) -> list[list[float]]:
    """Linearly rising rates, 0 to ``rate``, over all blocks of all stages in order."""
    total = sum(depths)
    flat = [rate * i / max(total - 1, 1) for i in range(total)]
    starts = [sum(depths[:s]) for s in range(len(depths))]
    return [flat[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


def init_weights(module: nn.Module) -> None:
    """Official initialisation of one layer; convolutions and BatchNorm keep torch's own.

    Linear: truncated normal of std 0.02, zero bias. LayerNorm: one and zero.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def residual_scale(shape: tuple[int, ...], value: float | None) -> nn.Parameter | None:
    """Layer-scale parameter of ``shape`` filled with ``value``; None if there is none."""
    return None if value is None else nn.Parameter(torch.full(shape, value))
