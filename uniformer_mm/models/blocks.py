# SPDX-License-Identifier: Apache-2.0
"""The blocks of UniFormer: convolutional in stages 1 and 2, attention in stages 3 and 4.

Each block begins with a depthwise 3x3 (x3) convolution added to its input (dynamic position
embedding), then a token mixer and an MLP, both residual with stochastic depth and, in some archs,
a learned residual scale. Shapes as in ``attention.py`` and ``layers.py``.
Source: arXiv 2201.09450 equations 2 to 4; official files named in ``layers.py``.
"""

from __future__ import annotations

from torch import Tensor, nn

from .attention import (
    Attention,
    attend_globally,
    attend_in_windows,
    attend_over_space,
    attend_over_time,
)
from .layers import (
    BATCH_NORM,
    BLOCK_NORM_EPS,
    CONV,
    DropPath,
    Mlp,
    depthwise,
    init_weights,
    residual_scale,
)


def _scaled(gamma: Tensor | None, x: Tensor) -> Tensor:
    return x if gamma is None else gamma * x


class LocalBlock(nn.Module):
    """Convolution block (official ``CBlock``): affinity is a learned 5x5 (x5) neighbourhood.

    Args:
        rank: 2 or 3.
        dim: Channels C.
        mlp_ratio: Hidden width of the MLP in multiples of C.
        drop_path: Stochastic-depth rate of both branches.
        layer_scale: Initial residual scale, or None.
    """

    def __init__(
        self,
        rank: int,
        dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        conv, norm = CONV[rank], BATCH_NORM[rank]
        self.pos_embed = depthwise(rank, dim, 3)
        self.norm1 = norm(dim)
        self.conv1 = conv(dim, dim, 1)
        self.conv2 = conv(dim, dim, 1)
        self.attn = depthwise(rank, dim, 5)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm(dim)
        self.mlp = Mlp(conv(dim, hidden, 1), conv(hidden, dim, 1))
        shape = (1, dim) + (1,) * rank
        self.gamma_1 = residual_scale(shape, layer_scale)
        self.gamma_2 = residual_scale(shape, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``x_BCS -> y_BCS``."""
        x = x + self.pos_embed(x)
        mixed = self.conv2(self.attn(self.conv1(self.norm1(x))))
        x = x + self.drop_path(_scaled(self.gamma_1, mixed))
        return x + self.drop_path(_scaled(self.gamma_2, self.mlp(self.norm2(x))))


class GlobalBlock(nn.Module):
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
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.window_size = window_size
        self.pos_embed = depthwise(rank, dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = Attention(dim, head_dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(nn.Linear(dim, hidden), nn.Linear(hidden, dim))
        self.gamma_1 = residual_scale((dim,), layer_scale)
        self.gamma_2 = residual_scale((dim,), layer_scale)

    def mix(self, x_BTHWC: Tensor) -> Tensor:
        """The residual stream after the token mixer. Shape: ``x_BTHWC -> y_BTHWC``."""
        normed = self.norm1(x_BTHWC)
        if self.window_size is None:
            mixed = attend_globally(self.attn, normed)
        else:
            mixed = attend_in_windows(self.attn, normed, self.window_size)
        return x_BTHWC + self.drop_path(_scaled(self.gamma_1, mixed))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``x_BCS -> y_BCS``."""
        x = x + self.pos_embed(x)
        B, C, *_, H, W = x.shape
        x_BTHWC = self.mix(x.reshape(B, C, -1, H, W).permute(0, 2, 3, 4, 1))
        branch = _scaled(self.gamma_2, self.mlp(self.norm2(x_BTHWC)))
        y_BTHWC = x_BTHWC + self.drop_path(branch)
        return y_BTHWC.permute(0, 4, 1, 2, 3).reshape(x.shape)


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
        self.t_norm = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.t_attn = Attention(dim, head_dim)

    def init_temporal(self) -> None:
        """Official start: qkv zero and proj one, so that the temporal branch adds nothing."""
        for parameter in (*self.t_attn.qkv.parameters(), self.t_attn.proj.bias):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.t_attn.proj.weight)

    def mix(self, x_BTHWC: Tensor) -> Tensor:
        """Shape: ``x_BTHWC -> y_BTHWC``."""
        temporal = attend_over_time(self.t_attn, self.t_norm(x_BTHWC))
        u_BTHWC = x_BTHWC + self.drop_path(temporal)
        spatial = attend_over_space(self.attn, self.norm1(u_BTHWC))
        return x_BTHWC + self.drop_path(_scaled(self.gamma_1, spatial))


def init_block(module: nn.Module) -> None:
    """Official initialisation of any layer or block; for ``nn.Module.apply`` (children first)."""
    init_weights(module)
    if isinstance(module, DividedBlock):
        module.init_temporal()
