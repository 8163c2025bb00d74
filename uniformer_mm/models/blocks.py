# SPDX-License-Identifier: Apache-2.0
"""The blocks of UniFormer: convolutional in stages 1 and 2, attention in stages 3 and 4.

Each block begins with a depthwise 3x3 (x3) convolution added to its input (dynamic position
embedding), then a token mixer and an MLP, both residual with stochastic depth and, in some archs,
a learned residual scale. Maps are channels-last from the first block to the last; shapes as in
``attention.py`` and ``layers.py``.
Source: arXiv 2201.09450 equations 2 to 4; official files named in ``layers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .attention import (
    Attention,
    FoldedAttention,
    attend_globally,
    attend_in_windows,
    attend_over_space,
    attend_over_time,
)
from .fused import add_linear, folded_linear, layer_standardise, norm_linear
from .fused_mlp import norm_mlp, reads_stream
from .fused_norm import LAYER
from .layers import (
    BATCH_NORM,
    BLOCK_NORM_EPS,
    DropPath,
    LayerNorm,
    Linear,
    Mlp,
    add_convolved,
    called,
    convolved,
    depthwise,
    fused_kind,
    holds_tensors,
    init_weights,
    is_own_depthwise,
    is_own_mlp,
    is_usable,
    is_watched,
    normalised,
    pointwise,
    residual_scale,
    wants_copy,
)
from .plan import LinearEntry
from .prepared import Matrix, Weights, matrix_of, prepare

# What stochastic depth drops by itself: a sample; officially also each pixel's branch of attention
# over time, and each frame's over space, because they are samples of a batch there.
SAMPLES, PIXELS, FRAMES = (0,), (0, 2, 3), (0, 1)


def has_taps(conv: nn.Module) -> bool:
    """Whether formulas may use the taps of a depthwise convolution where kernels run."""
    return is_own_depthwise(conv) and holds_tensors(conv)


def mlp_layers(mlp: nn.Module, norm: nn.Module, x: Tensor) -> Iterator[LinearEntry]:
    """Both layers of an MLP, if formulas may use them."""
    kind = fused_kind(norm, x, mlp.fc1, mlp.fc2) if is_own_mlp(mlp) else None
    if kind is not None:
        yield mlp.fc1, norm, kind
        yield mlp.fc2, None, None


def mlp_matrices(mlp: nn.Module, weights: Weights | None) -> tuple[Matrix, Matrix] | None:
    """The matrices of an MLP that is part of a formula; None if it is not."""
    if weights is None or not is_own_mlp(mlp):
        return None
    first = weights.matrices.get(mlp.fc1)
    return None if first is None else (first, weights.matrices[mlp.fc2])


class _Block(nn.Module):
    """What all blocks share: position embedding, stochastic depth, residual scales.

    Args:
        rank: 2 or 3.
        dim: Channels C.
        drop_path: Stochastic-depth rate of both branches.
    """

    gamma_1: Tensor | None
    gamma_2: Tensor | None
    # Whether norms and layers are BatchNorms and convolutions.
    convolves = False

    def __init__(self, rank: int, dim: int, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = depthwise(rank, dim, 3)
        self.drop_path = DropPath(drop_path)

    def drops_by_factors(self) -> bool:
        """Whether stochastic depth is ours as built, so that its factors may be used."""
        return type(self.drop_path) is DropPath and not is_watched(self.drop_path)

    def add(
        self,
        x_BSC: Tensor,
        branch_BSC: Tensor,
        gamma: Tensor | None = None,
        dropped: tuple[int, ...] = SAMPLES,
    ) -> Tensor:
        """``x + drop_path(gamma * branch)`` in the dtype of ``x``; ``dropped`` by which axes."""
        if gamma is not None:
            gamma = gamma.flatten().to(x_BSC.dtype)
        if not self.drops_by_factors():
            branch_BSC = branch_BSC.to(x_BSC.dtype)
            return x_BSC + self.drop_path(branch_BSC if gamma is None else gamma * branch_BSC)
        factors = self.drop_path.factors(x_BSC, dropped)
        if gamma is not None:
            factors = gamma if factors is None else gamma * factors
        if factors is None:
            return x_BSC + branch_BSC
        return torch.addcmul(x_BSC, branch_BSC.to(x_BSC.dtype), factors)

    def add_layer(
        self,
        x_BSC: Tensor,
        layer: nn.Module,
        a_BSI: Tensor,
        gamma: Tensor | None,
        weights: Weights | None,
        copies: bool = False,
        dropped: tuple[int, ...] = SAMPLES,
    ) -> tuple[Tensor, Tensor | None]:
        """:meth:`add` with ``layer(a)`` as the branch.

        Returns:
            The sum, and where ``copies`` asks for it and it comes at no cost, the sum in the dtype
            of matrix products.
        """
        cast = matrix_of(weights, layer)
        if cast is None:
            return self.add(x_BSC, called(layer, a_BSI, self.convolves), gamma, dropped), None
        if gamma is not None or not self.drops_by_factors():
            return self.add(x_BSC, folded_linear(cast, a_BSI), gamma, dropped), None
        factors = self.drop_path.factors(x_BSC, dropped)
        if factors is None or dropped != PIXELS:
            return add_linear(cast, x_BSC, a_BSI, factors, copies)
        # The formula takes a factor for so many rows that follow each other.
        branch_BSC = folded_linear(cast, a_BSI).to(x_BSC.dtype)
        return torch.addcmul(x_BSC, branch_BSC, factors), None

    def add_mlp(
        self,
        x_BSC: Tensor,
        mlp: Mlp,
        norm: nn.Module,
        gamma: Tensor | None,
        weights: Weights | None,
        copy_BSC: Tensor | None = None,
    ) -> Tensor:
        """:meth:`add` with ``mlp(norm(x))`` as the branch; ``copy_BSC`` is x in another dtype."""
        matrices = mlp_matrices(mlp, weights)
        if matrices is None:
            return self.add(x_BSC, mlp(x_BSC, norm), gamma)
        adds = gamma is None and self.drops_by_factors()
        factors = self.drop_path.factors(x_BSC) if adds else None
        y_BSC, branch_BSC = norm_mlp(norm, *matrices, x_BSC, copy_BSC, factors, adds)
        return y_BSC if adds else self.add(y_BSC, branch_BSC, gamma)


class LocalBlock(_Block):
    """Convolution block (official ``CBlock``): affinity is a learned 5x5 (x5) neighbourhood.

    Args:
        rank: 2 or 3.
        dim: Channels C.
        mlp_ratio: Hidden width of the MLP in multiples of C.
        drop_path: Stochastic-depth rate of both branches.
        layer_scale: Initial residual scale, or None.
    """

    convolves = True

    def __init__(
        self,
        rank: int,
        dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__(rank, dim, drop_path)
        hidden, norm = int(dim * mlp_ratio), BATCH_NORM[rank]
        self.norm1 = norm(dim)
        self.conv1 = pointwise(rank, dim, dim)
        self.conv2 = pointwise(rank, dim, dim)
        self.attn = depthwise(rank, dim, 5)
        self.norm2 = norm(dim)
        self.mlp = Mlp(pointwise(rank, dim, hidden), pointwise(rank, hidden, dim))
        shape = (1, dim) + (1,) * rank
        self.gamma_1 = residual_scale(shape, layer_scale)
        self.gamma_2 = residual_scale(shape, layer_scale)

    def linear_layers(self, x: Tensor) -> Iterator[LinearEntry]:
        """See :class:`~uniformer_mm.models.plan.Block`."""
        kind = fused_kind(self.norm1, x, self.conv1)
        if kind is not None:
            yield self.conv1, self.norm1, kind
        if is_usable(self.conv2):
            yield self.conv2, None, None
        yield from mlp_layers(self.mlp, self.norm2, x)

    def depthwise_layers(self) -> Iterator[nn.Module]:
        """See :class:`~uniformer_mm.models.plan.Block`."""
        return filter(has_taps, (self.pos_embed, self.attn))

    def forward(self, x_BSC: Tensor, weights: Weights | None = None) -> Tensor:
        """Shape: ``x_BSC -> y_BSC``; ``weights`` are prepared here if they are not given."""
        weights = weights or prepare((self,), x_BSC)
        x_BSC, copy_BSC = add_convolved(self.pos_embed, x_BSC, weights, wants_copy(self.norm1))
        x_BSC, mixed = normalised(self.norm1, self.conv1, x_BSC, True, copy_BSC, weights)
        mixed = convolved(self.attn, mixed, weights)
        matrices = mlp_matrices(self.mlp, weights)
        copies = wants_copy(self.norm2) and not (matrices and reads_stream(*matrices))
        x_BSC, copy_BSC = self.add_layer(x_BSC, self.conv2, mixed, self.gamma_1, weights, copies)
        return self.add_mlp(x_BSC, self.mlp, self.norm2, self.gamma_2, weights, copy_BSC)


class GlobalBlock(_Block):
    """Attention block (official ``SABlock``, and ``SABlock_Windows`` with a window size).

    Args:
        rank: 2 or 3.
        dim: Channels C.
        head_dim: Channels of a head.
        mlp_ratio: Hidden width of the MLP in multiples of C.
        drop_path: Stochastic-depth rate of both branches.
        layer_scale: Initial residual scale, or None.
        window_size: Side of the windows in tokens; None attends globally. In 3-D a window spans
            all frames.
    """

    # The attention as built, which formulas may take apart.
    attention_type: type[Attention] = Attention

    def __init__(
        self,
        rank: int,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        window_size: int | None = None,
    ) -> None:
        super().__init__(rank, dim, drop_path)
        hidden = int(dim * mlp_ratio)
        self.window_size = window_size
        self.norm1 = LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = Attention(dim, head_dim)
        self.norm2 = LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(Linear(dim, hidden), Linear(hidden, dim))
        self.gamma_1 = residual_scale((dim,), layer_scale)
        self.gamma_2 = residual_scale((dim,), layer_scale)

    def attentions(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Each attention and the norm before it."""
        return ((self.attn, self.norm1),)

    def linear_layers(self, x: Tensor) -> Iterator[LinearEntry]:
        """See :class:`~uniformer_mm.models.plan.Block`."""
        for attention, norm in self.attentions():
            if type(attention) is not self.attention_type or is_watched(attention):
                continue
            if fused_kind(norm, x, attention.qkv, attention.proj) == LAYER:
                yield attention.qkv, norm, LAYER
                yield attention.proj, None, None
        yield from mlp_layers(self.mlp, self.norm2, x)

    def depthwise_layers(self) -> Iterator[nn.Module]:
        """See :class:`~uniformer_mm.models.plan.Block`."""
        return filter(has_taps, (self.pos_embed,))

    def add_attention(
        self,
        x_BTHWC: Tensor,
        attention: nn.Module,
        norm: nn.Module,
        attend: Callable[..., Tensor],
        weights: Weights | None,
        gamma: Tensor | None = None,
        to_BTHWC: Tensor | None = None,
        dropped: tuple[int, ...] = SAMPLES,
    ) -> Tensor:
        """``x + branch``: attention on the norm of x, among the tokens that ``attend`` groups.

        Args:
            x_BTHWC: The residual stream.
            attention: The attention.
            norm: The norm before it.
            attend: One of the functions of ``attention.py``.
            weights: What formulas use.
            gamma: Residual scale, or None.
            to_BTHWC: What the branch is added to, if not x.
            dropped: Axes along which stochastic depth drops the branch place by place.
        """
        folded = matrix_of(weights, attention.qkv) if type(attention) is Attention else None
        if folded is None:
            mixed = attend(attention, norm(x_BTHWC))
            return self.add(x_BTHWC if to_BTHWC is None else to_BTHWC, mixed, gamma, dropped)
        if attend is attend_globally:
            # Tokens stay as they are, so the norm and the projection are one formula.
            x_BTHWC, qkv_BTHWK = norm_linear(norm, folded, x_BTHWC, None)
            mixed = attend(attention.attend, qkv_BTHWK)
        else:
            x_BTHWC, xhat_BTHWC = layer_standardise(norm, x_BTHWC, folded.weight.dtype)
            mixed = attend(FoldedAttention(attention, folded), xhat_BTHWC)
        target = x_BTHWC if to_BTHWC is None else to_BTHWC
        return self.add_layer(target, attention.proj, mixed, gamma, weights, dropped=dropped)[0]

    def mix(self, x_BTHWC: Tensor, weights: Weights | None) -> Tensor:
        """The residual stream after the token mixer. Shape: ``x_BTHWC -> y_BTHWC``."""
        attend = attend_globally if self.window_size is None else self.attend_in_windows
        return self.add_attention(x_BTHWC, self.attn, self.norm1, attend, weights, self.gamma_1)

    def attend_in_windows(self, attention: Attention | FoldedAttention, x_BTHWC: Tensor) -> Tensor:
        """Attention in windows of the block's size. Shape: ``x_BTHWC -> y_BTHWC``."""
        return attend_in_windows(attention, x_BTHWC, self.window_size)

    def forward(self, x_BSC: Tensor, weights: Weights | None = None) -> Tensor:
        """Shape: ``x_BSC -> y_BSC``; ``weights`` are prepared here if they are not given."""
        weights = weights or prepare((self,), x_BSC)
        x_BSC, _ = add_convolved(self.pos_embed, x_BSC, weights)
        is_clip = x_BSC.ndim == 5
        x_BTHWC = self.mix(x_BSC if is_clip else x_BSC.unsqueeze(1), weights)
        y_BTHWC = self.add_mlp(x_BTHWC, self.mlp, self.norm2, self.gamma_2, weights)
        return y_BTHWC if is_clip else y_BTHWC.squeeze(1)


class DividedBlock(GlobalBlock):
    """Attention over time, then over space (official ``SplitSABlock``; 3-D only).

    The spatial branch reads the temporal branch's output but is added to the block's input, so
    the temporal residual itself is not carried on, as in the official code.
    """

    def __init__(
        self,
        rank: int,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__(rank, dim, head_dim, mlp_ratio, drop_path, layer_scale)
        self.t_norm = LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.t_attn = Attention(dim, head_dim)

    def init_temporal(self) -> None:
        """Official start: qkv zero and proj one, so that the temporal branch adds nothing."""
        for parameter in (*self.t_attn.qkv.parameters(), self.t_attn.proj.bias):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.t_attn.proj.weight)

    def attentions(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Each attention and the norm before it."""
        return *super().attentions(), (self.t_attn, self.t_norm)

    def mix(self, x_BTHWC: Tensor, weights: Weights | None) -> Tensor:
        """Shape: ``x_BTHWC -> y_BTHWC``."""
        time = self.t_attn, self.t_norm, attend_over_time, weights
        u_BTHWC = self.add_attention(x_BTHWC, *time, dropped=PIXELS)
        space = self.attn, self.norm1, attend_over_space, weights, self.gamma_1
        return self.add_attention(u_BTHWC, *space, to_BTHWC=x_BTHWC, dropped=FRAMES)


BLOCK_TYPES = (LocalBlock, GlobalBlock, DividedBlock)


def init_block(module: nn.Module) -> None:
    """Official initialisation of any layer or block; for ``nn.Module.apply`` (children first)."""
    init_weights(module)
    if isinstance(module, DividedBlock):
        module.init_temporal()
