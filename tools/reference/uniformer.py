# SPDX-License-Identifier: Apache-2.0
"""The network as the official code computes it: the reference for parity and for timings.

Channels first throughout, softmax attention as three separate steps, a permutation before and
after every attention block, nothing fused: what users of Sense-X/UniFormer @52a0415 run in eager
mode. Keys and shapes of the state dict are the official ones. ``test_golden.py`` checks it against
the released networks' outputs; nothing here imports the network under test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}


class _BatchNorm:
    """For one sample, torch's backward pass on a CPU (2.14) is wrong where strides differ."""

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        if len(x) > 1 or x.device.type != 'cpu':
            return super().forward(x)
        y = super().forward(x.contiguous())
        if y.requires_grad:
            y.register_hook(Tensor.contiguous)
        return y


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """For images."""


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """For clips."""


NORM = {2: BatchNorm2d, 3: BatchNorm3d}


def rounds_as_on_gpu(x: Tensor) -> bool:
    """Whether to give norms and softmax float32, as autocast does on a GPU and not on a CPU."""
    return OfficialUniFormer.autocast_as_on_gpu and torch.is_autocast_enabled(x.device.type)


class LayerNorm(nn.LayerNorm):
    """In float32 where autocast on a GPU would be."""

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        return super().forward(x.float() if rounds_as_on_gpu(x) else x)


class DropPath(nn.Module):
    """Stochastic depth: whole samples of a branch."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        noise = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x.div(keep) * (noise + keep).floor()


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = fc1, nn.GELU(), fc2

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        return self.fc2(self.act(self.fc1(x)))


class Attention(nn.Module):
    """Softmax attention over all tokens."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.scale = dim // head_dim, head_dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        return self.attend(x)[0]

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output and attention weights."""
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * self.scale
        weights = scores.softmax(dim=-1, dtype=torch.float if rounds_as_on_gpu(x) else None)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, C)), weights


class Block(nn.Module):
    """What all blocks share: position embedding, stochastic depth, residual scales."""

    def __init__(self, rank: int, dim: int, drop_path: float, scale: nn.Parameter | None) -> None:
        super().__init__()
        self.pos_embed = CONV[rank](dim, dim, 3, padding=1, groups=dim)
        self.drop_path = DropPath(drop_path)
        if scale is not None:
            self.gamma_1, self.gamma_2 = scale, nn.Parameter(scale.detach().clone())

    def scaled(self, gamma: str, x: Tensor) -> Tensor:
        """The branch times its residual scale, if it has one."""
        return getattr(self, gamma) * x if hasattr(self, gamma) else x

    def branch(self, gamma: str, x: Tensor) -> Tensor:
        """The branch as it is added."""
        return self.drop_path(self.scaled(gamma, x))


class CBlock(Block):
    """A block with a 5-wide depthwise convolution instead of attention."""

    def __init__(self, rank: int, dim: int, ratio: float, drop: float, scale: float | None) -> None:
        shape = (1, dim) + (1,) * rank
        gamma = None if scale is None else nn.Parameter(torch.full(shape, scale))
        super().__init__(rank, dim, drop, gamma)
        conv, hidden = CONV[rank], int(dim * ratio)
        self.norm1, self.norm2 = NORM[rank](dim), NORM[rank](dim)
        self.conv1, self.conv2 = conv(dim, dim, 1), conv(dim, dim, 1)
        self.attn = conv(dim, dim, 5, padding=2, groups=dim)
        self.mlp = Mlp(conv(dim, hidden, 1), conv(hidden, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        x = x + self.pos_embed(x)
        x = x + self.branch('gamma_1', self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.branch('gamma_2', self.mlp(self.norm2(x)))


class SABlock(Block):
    """A block with attention over all positions."""

    def __init__(
        self, rank: int, dim: int, head_dim: int, ratio: float, drop: float, scale: float | None
    ) -> None:
        gamma = None if scale is None else nn.Parameter(torch.full((dim,), scale))
        super().__init__(rank, dim, drop, gamma)
        hidden = int(dim * ratio)
        self.norm1, self.norm2 = LayerNorm(dim, eps=1e-6), LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, head_dim)
        self.mlp = Mlp(nn.Linear(dim, hidden), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        x = x + self.pos_embed(x)
        shape = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = x + self.branch('gamma_1', self.attn(self.norm1(x)))
        x = x + self.branch('gamma_2', self.mlp(self.norm2(x)))
        return x.transpose(1, 2).reshape(shape)


class WindowBlock(SABlock):
    """Of clips, which the official code has no windows for, a window holds all frames."""

    def __init__(self, window: int, *args) -> None:
        super().__init__(*args)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        x = x + self.pos_embed(x)
        shortcut = x.movedim(1, -1)
        B, *frames, H, W, C = shortcut.shape
        w, T = self.window, math.prod(frames)
        x = nn.functional.pad(self.norm1(shortcut), (0, 0, 0, -W % w, 0, -H % w))
        rows, cols = x.shape[-3] // w, x.shape[-2] // w
        windows = x.view(B, T, rows, w, cols, w, C).permute(0, 2, 4, 1, 3, 5, 6).contiguous()
        y = self.attn(windows.view(-1, T * w * w, C)).view(B, rows, cols, T, w, w, C)
        y = y.permute(0, 3, 1, 4, 2, 5, 6).contiguous().view(B, *frames, rows * w, cols * w, C)
        x = shortcut + self.branch('gamma_1', y[..., :H, :W, :].contiguous())
        x = x + self.branch('gamma_2', self.mlp(self.norm2(x)))
        return x.movedim(-1, 1)


class SplitSABlock(SABlock):
    """A block with attention over time and space one after the other."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        dim = self.norm1.normalized_shape[0]
        self.t_norm = LayerNorm(dim, eps=1e-6)
        self.t_attn = Attention(dim, args[2])

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        x = x + self.pos_embed(x)
        B, C, T, H, W = x.shape
        tokens = x.view(B, C, T, H * W).permute(0, 3, 2, 1).reshape(B * H * W, T, C)
        tokens = self.drop_path(self.t_attn(self.t_norm(tokens)))
        tokens = tokens.view(B, H * W, T, C).permute(0, 2, 1, 3).reshape(B * T, H * W, C)
        residual = x.view(B, C, T, H * W).permute(0, 2, 3, 1).reshape(B * T, H * W, C)
        space = self.branch('gamma_1', self.attn(self.norm1(residual + tokens)))
        x = (residual + space).view(B, T * H * W, C)
        x = x + self.branch('gamma_2', self.mlp(self.norm2(x)))
        return x.transpose(1, 2).reshape(B, C, T, H, W)


class EvoSABlock(SABlock):
    """Tokens sorted by score; the low ones as one weighted sum, which carries them along."""

    def __init__(self, keep: float, pools: bool, *args) -> None:
        super().__init__(*args)
        self.keep, self.pools = keep, pools

    def forward(
        self, x: Tensor, cls: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As released."""
        x = x + self.pos_embed(x)
        shape, tokens = x.shape, x.flatten(2).transpose(1, 2)
        B, N, C = tokens.shape
        if self.keep == 1:
            both, _, row = self.mix(torch.cat([cls, tokens], 1), N)
            cls, tokens = both[:, :1], both[:, 1:]
            scores = row if scores is None else (1 - self.keep) * scores + self.keep * row
            return tokens.transpose(1, 2).reshape(shape), cls, scores
        count = int(N * self.keep)
        order = scores.argsort(dim=1, descending=True)
        tokens = torch.gather(tokens, 1, order[..., None].expand(B, N, C))
        scores = torch.gather(scores, 1, order)
        high, low = tokens[:, :count], tokens[:, count:]
        share = scores[:, count:] / scores[:, count:].sum(1, keepdim=True)
        merged = (low * share[..., None]).sum(1, keepdim=True)
        three, gain, row = self.mix(torch.cat([cls, high, merged], 1), count)
        cls, high = three[:, :1], three[:, 1 : 1 + count]
        high_scores = (1 - self.keep) * scores[:, :count] + self.keep * row
        tokens = torch.cat([high, low + gain], 1)
        scores = torch.cat([high_scores, scores[:, count:]], 1)
        undo = order.argsort(dim=1)
        tokens = torch.gather(tokens, 1, undo[..., None].expand(B, N, C))
        scores = torch.gather(scores, 1, undo)
        if self.pools:
            side = scores.reshape(B, 1, *shape[2:])
            kernel = (1,) * (len(shape) - 4) + (2, 2)
            pool = nn.functional.avg_pool2d if len(kernel) == 2 else nn.functional.avg_pool3d
            pooled = pool(side, kernel, kernel).reshape(B, -1)
            scores = pooled * scores.sum(1, keepdim=True) / pooled.sum(1, keepdim=True)
        return tokens.transpose(1, 2).reshape(shape), cls, scores

    def mix(self, x: Tensor, scored: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, gain of the last one without stochastic depth, scores of those after the first.

        The gain is what the merged token's branches are worth before they are dropped.
        """
        attended, weights = self.attn.attend(self.norm1(x))
        x = x + self.branch('gamma_1', attended)
        hidden = self.mlp(self.norm2(x))
        gain = self.scaled('gamma_1', attended[:, -1:]) + self.scaled('gamma_2', hidden[:, -1:])
        row = weights[:, :, 0, 1 : 1 + scored].mean(1)
        return x + self.branch('gamma_2', hidden), gain, row


class PatchEmbed(nn.Module):
    """A convolution and a LayerNorm."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.norm, self.proj = LayerNorm(proj.out_channels), proj

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        x = self.proj(x)
        B, _, *size = x.shape
        x = self.norm(x.flatten(2).transpose(1, 2)).reshape(B, *size, -1)
        return x.movedim(-1, 1).contiguous()


class ConvEmbed(nn.Module):
    """A stem of several convolutions."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """As released."""
        return self.proj(x)


def embedding(rank: int, kind: str, stage: int, widths: Sequence[int], kernel_t: int) -> nn.Module:
    """The patch embedding before a stage."""
    conv, time = CONV[rank], rank - 2
    source, dim = widths[stage : stage + 2]
    side, stride_t = (4, 2) if stage == 0 else (2, 1)
    kernel_t = 3 if stage == 0 else kernel_t
    if kind == 'patch':
        kernel, stride = (kernel_t,) * time + (side,) * 2, (stride_t,) * time + (side,) * 2
        return PatchEmbed(conv(source, dim, kernel, stride, (kernel_t // 2,) * time + (0, 0)))
    kernel, stride = (kernel_t,) * time + (3, 3), (1,) * time + (2, 2)
    padding = (kernel_t // 2,) * time + (1, 1)
    if stage:
        return ConvEmbed(conv(source, dim, kernel, stride, padding), NORM[rank](dim))
    last = (2,) * time + (2, 2)
    return ConvEmbed(
        conv(source, dim // 2, kernel, stride, padding),
        NORM[rank](dim // 2),
        nn.GELU(),
        conv(dim // 2, dim, kernel, last, padding),
        NORM[rank](dim),
    )


class OfficialUniFormer(nn.Module):
    """Classifier (``num_classes`` given) or dense backbone with a LayerNorm for each output.

    Args:
        rank: 2 or 3.
        depths: Blocks per stage.
        dims: Channels per stage.
        head_dim: Channels per attention head.
        mlp_ratio: Hidden width of the MLPs in multiples of the stage width.
        stem: ``'patch'`` or ``'conv'``.
        downsample: ``'patch'`` or ``'conv'``.
        layer_scale: Initial residual scale; None for none.
        layer_scale_in: ``'attention'`` or ``'all'``.
        token_labels: Whether the classifier has the dense head.
        keep_ratios: Share of tokens kept by each block of stages 3 and 4; None for plain blocks.
        num_classes: Width of the head; None builds the dense backbone.
        attention: ``'global'``, ``'window'``, ``'hybrid'`` or ``'divided'``.
        window_size: Side of a window in tokens.
        drop_path_rate: Stochastic-depth rate of the last block.
        patch_kernel_t: Time kernel of the later embeddings.
    """

    autocast_as_on_gpu = False

    def __init__(
        self,
        rank: int,
        *,
        depths: Sequence[int],
        dims: Sequence[int],
        head_dim: int,
        mlp_ratio: float = 4,
        stem: str = 'patch',
        downsample: str = 'patch',
        layer_scale: float | None = None,
        layer_scale_in: str = 'all',
        token_labels: bool = False,
        keep_ratios: Sequence[Sequence[float]] | None = None,
        num_classes: int | None = None,
        attention: str = 'global',
        window_size: int = 14,
        drop_path_rate: float = 0.0,
        patch_kernel_t: int = 1,
    ) -> None:
        super().__init__()
        widths, last = (3, *dims), max(sum(depths) - 1, 1)
        for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            kind = stem if stage == 0 else downsample
            embed = embedding(rank, kind, stage, widths, patch_kernel_t)
            self.add_module(f'patch_embed{stage + 1}', embed)
            blocks = nn.ModuleList()
            for index in range(depth):
                drop = drop_path_rate * (sum(depths[:stage]) + index) / last
                if stage < 2:
                    scale = layer_scale if layer_scale_in == 'all' else None
                    blocks.append(CBlock(rank, dim, mlp_ratio, drop, scale))
                    continue
                args = (rank, dim, head_dim, mlp_ratio, drop, layer_scale)
                window = attention == 'window' or (attention == 'hybrid' and (index + 1) % 4)
                if keep_ratios is not None:
                    pools = stage == 2 and index == depth - 1
                    blocks.append(EvoSABlock(keep_ratios[stage - 2][index], pools, *args))
                elif attention == 'divided':
                    blocks.append(SplitSABlock(*args))
                elif stage == 2 and window:
                    blocks.append(WindowBlock(window_size, *args))
                else:
                    blocks.append(SABlock(*args))
            self.add_module(f'blocks{stage + 1}', blocks)
        self.light = keep_ratios is not None
        if self.light:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dims[2]))
            self.cls_upsample = nn.Linear(*dims[2:])
        self.dense = num_classes is None
        if self.dense:
            for stage, dim in enumerate(dims):
                self.add_module(f'norm{stage + 1}', LayerNorm(dim, eps=1e-6))
            return
        self.norm = NORM[rank](dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)
        if token_labels:
            self.aux_head = nn.Linear(dims[-1], num_classes)
        if self.light:
            self.norm_cls = LayerNorm(dims[-1])
            self.head_cls = nn.Linear(dims[-1], num_classes)

    def run(self, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Raw maps of the four stages, and the last class token of a light network."""
        maps, cls, scores = [], None, None
        for stage in range(1, 5):
            x = getattr(self, f'patch_embed{stage}')(x)
            if self.light and stage == 3:
                # A copy: a view would still ask for gradients without them, which counters refuse.
                cls = self.cls_token.repeat(x.shape[0], 1, 1)
            elif self.light and stage == 4:
                cls = self.cls_upsample(cls)
            for block in getattr(self, f'blocks{stage}'):
                if isinstance(block, EvoSABlock):
                    x, cls, scores = block(x, cls, scores)
                else:
                    x = block(x)
            maps.append(x)
        return maps, cls

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Maps of the four stages, or logits (of evaluation, for token-labelling networks).

        In training a light classifier returns the class token's logits too.
        """
        maps, cls = self.run(x)
        if self.dense:
            norms = [getattr(self, f'norm{stage}') for stage in range(1, 5)]
            normed = (norm(x.movedim(1, -1)) for norm, x in zip(norms, maps, strict=True))
            return tuple(x.movedim(-1, 1).contiguous() for x in normed)
        x = self.norm(maps[-1]).flatten(2)
        logits = self.head(x.mean(-1))
        if self.light and self.training:
            return logits, self.head_cls(self.norm_cls(cls[:, 0]))
        if hasattr(self, 'aux_head'):
            logits = logits + 0.5 * self.aux_head(x.transpose(1, 2)).max(1)[0]
        return logits
