# SPDX-License-Identifier: Apache-2.0
"""The blocks of UniFormer: convolution in stages 1 and 2, attention in stages 3 and 4.

Each is the paper's equations 1 to 3: dynamic position embedding, a token mixer that is local (a 5x5
neighbourhood) or global (self-attention), and an MLP, all residual. Blocks take and return maps
``(B, C, *S)`` in channels-last memory; attention works on their tokens ``(B, N, C)``.
``uniformer_mm.fast`` may run a block in another form that gives the same result.
Source: arXiv 2201.09450; Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer.py``,
``object_detection/mmdet/models/backbones/uniformer.py`` (windows),
``video_classification/slowfast/models/uniformer.py`` (divided).
"""

from __future__ import annotations

from torch import Size, Tensor, nn

from .. import fast
from ..layers import (
    BATCH_NORM,
    BLOCK_NORM_EPS,
    Attention,
    DropPath,
    Mlp,
    depthwise,
    init_weights,
    join_windows,
    map_to_frames,
    map_to_pixels,
    pixels_to_frames,
    pointwise,
    residual_scale,
    split_windows,
    to_map,
    to_tokens,
)


class Block(nn.Module):
    """What all blocks share: how a branch is added to the residual stream."""

    drop_path: nn.Module
    gamma_1: Tensor | None
    gamma_2: Tensor | None

    def add(self, x: Tensor, branch: Tensor, gamma: Tensor | None = None) -> Tensor:
        """``x + drop_path(gamma * branch)``, in the dtype of ``x`` if that is the wider one."""
        return x + self.drop_path(branch if gamma is None else gamma.to(x.dtype) * branch)


class LocalBlock(Block):
    """Convolution block (official ``CBlock``): affinity is a learned 5x5 (x5) neighbourhood.

    Args:
        ndim: 2 or 3.
        dim: Channels C.
        mlp_ratio: Hidden width of the MLP in multiples of C.
        drop_path: Stochastic-depth rate of both branches.
        layer_scale: Initial residual scale, or None.
    """

    def __init__(
        self,
        ndim: int,
        dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        # Norms come first: helpers that fold a BatchNorm into the convolution before it go by the
        # order of children, and here the convolution comes after its norm.
        self.norm1, self.norm2 = BATCH_NORM[ndim](dim), BATCH_NORM[ndim](dim)
        self.pos_embed = depthwise(ndim, dim, 3)
        self.conv1 = pointwise(ndim, dim, dim)
        self.attn = depthwise(ndim, dim, 5)
        self.conv2 = pointwise(ndim, dim, dim)
        self.drop_path = DropPath(drop_path)
        hidden = int(dim * mlp_ratio)
        self.mlp = Mlp(pointwise(ndim, dim, hidden), pointwise(ndim, hidden, dim))
        self.gamma_1 = residual_scale((1, dim) + (1,) * ndim, layer_scale)
        self.gamma_2 = residual_scale((1, dim) + (1,) * ndim, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, C, *S) -> (B, C, *S)``."""
        if fast.why_not(self, x) is None:
            return fast.local_block(self, x)
        x = x + self.pos_embed(x)
        x = self.add(x, self.conv2(self.attn(self.conv1(self.norm1(x)))), self.gamma_1)
        return self.add(x, self.mlp(self.norm2(x)), self.gamma_2)


class GlobalBlock(Block):
    """Attention block (official ``SABlock``, and ``SABlock_Windows`` with a window size).

    Args:
        ndim: 2 or 3.
        dim: Channels C.
        head_dim: Channels of a head.
        mlp_ratio: Hidden width of the MLP in multiples of C.
        drop_path: Stochastic-depth rate of both branches.
        layer_scale: Initial residual scale, or None.
        window_size: Side of the windows in tokens; None attends globally.
    """

    def __init__(
        self,
        ndim: int,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        window_size: int | None = None,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.ndim = ndim
        self.window_size = window_size
        self.pos_embed = depthwise(ndim, dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = Attention(dim, head_dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(nn.Linear(dim, hidden), nn.Linear(hidden, dim))
        self.gamma_1 = residual_scale((dim,), layer_scale)
        self.gamma_2 = residual_scale((dim,), layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, C, *S) -> (B, C, *S)``."""
        if fast.why_not(self, x) is None:
            return fast.attention_block(self, x)
        x = x + self.pos_embed(x)
        tokens = to_tokens(x, self.ndim)
        tokens = self.add(tokens, self.attend(self.norm1(tokens), x.shape), self.gamma_1)
        tokens = self.add(tokens, self.mlp(self.norm2(tokens)), self.gamma_2)
        return to_map(tokens, x.shape, self.ndim)

    def attend(self, tokens: Tensor, shape: Size) -> Tensor:
        """Attention among all tokens of a map of ``shape``, or in its windows."""
        if self.window_size is None:
            return self.attn(tokens)
        windows = split_windows(tokens, shape, self.ndim, self.window_size)
        return join_windows(self.attn(windows), shape, self.ndim, self.window_size)


class DividedBlock(GlobalBlock):
    """Attention over time, then over space (official ``SplitSABlock``; clips only).

    The spatial branch reads the temporal branch's output but is added to the block's input, so
    the temporal residual itself is not carried on, as in the official code. Stochastic depth drops
    pixels of the one and frames of the other: they are samples of its batch.
    """

    def __init__(
        self,
        ndim: int,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__(ndim, dim, head_dim, mlp_ratio, drop_path, layer_scale)
        self.t_norm = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.t_attn = Attention(dim, head_dim)

    def init_temporal(self) -> None:
        """Official start: qkv zero and proj one, so that the temporal branch adds nothing."""
        for parameter in (*self.t_attn.qkv.parameters(), self.t_attn.proj.bias):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.t_attn.proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, C, T, H, W) -> (B, C, T, H, W)``."""
        if fast.why_not(self, x) is None:
            return fast.attention_block(self, x)
        x = x + self.pos_embed(x)
        pixels = map_to_pixels(x)
        pixels = self.add(pixels, self.t_attn(self.t_norm(pixels)))
        mixed = self.attn(self.norm1(pixels_to_frames(pixels, x.shape)))
        tokens = self.add(map_to_frames(x), mixed, self.gamma_1).reshape(x.shape[0], -1, x.shape[1])
        return to_map(
            self.add(tokens, self.mlp(self.norm2(tokens)), self.gamma_2), x.shape, self.ndim
        )


def init_block(module: nn.Module) -> None:
    """Official initialisation of any layer or block; for ``nn.Module.apply`` (children first)."""
    init_weights(module)
    if isinstance(module, DividedBlock):
        module.init_temporal()
