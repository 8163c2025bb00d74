# SPDX-License-Identifier: Apache-2.0
"""Blocks of the lightweight archs: full attention for the tokens that matter, one for the rest.

A class token that runs beside the map scores every token by how much it attends to it. A block
keeps the best share of the tokens, merges the others into one, weighted by their scores, and lets
the class token, the kept tokens and the merged one attend to each other. What the merged token
gains is added to all tokens it stands for, so that no token is lost and the map keeps its size.

``K`` kept tokens, ``L`` tokens that attend: class, kept, merged; ``D`` head width.
Source: Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer_light.py``,
``video_classification/slowfast/models/uniformer_light.py``; the selection is that of Evo-ViT, arXiv
2108.01390.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.fx
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..layers import Attention, to_map, to_tokens
from ..ops.autocast import without_autocast
from .blocks import GlobalBlock

# Sums of scores below it count as 0: gradients through them would overflow float32.
LEAST_TOTAL = 1e-30


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 at least: shares of thousands of tokens need more than half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


# A tracer records the call: its own values have no dtype.
torch.fx.wrap('wide')


class ClassAttention(Attention):
    """Attention among tokens whose first is the class token, with that token's view of the others.

    Args:
        dim: Channels C.
        head_dim: Channels of a head D.
        scores_tokens: Whether somebody needs the scores.
    """

    def __init__(self, dim: int, head_dim: int, scores_tokens: bool = True) -> None:
        super().__init__(dim, head_dim)
        self.scores_tokens = scores_tokens

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Attend among all tokens.

        Args:
            x: Tokens ``(B, L, C)``, the class token first.

        Returns:
            Tokens ``(B, L, C)``, and the attention weights from the class token to the others,
            mean over the heads, ``(B, L - 1)`` in float32 at least; None if nobody needs them.
        """
        qkv = self.qkv(x)
        scores = self.class_scores(qkv) if self.scores_tokens else None
        return self.proj(self.attend(qkv)), scores

    def class_scores(self, qkv: Tensor) -> Tensor:
        """One row of the attention matrix, which the fused attention never holds."""
        q, k, _ = qkv.chunk(3, dim=-1)
        logits_BM1L = (self.heads(q[:, :1]) * self.head_dim**-0.5) @ self.heads(k).transpose(2, 3)
        return wide(logits_BM1L).softmax(-1).mean(1)[:, 0, 1:]


class HourglassBlock(GlobalBlock):
    """Attention block that keeps a share of the tokens (official ``EvoSABlock``).

    DIFFERS: scores and the class token are arguments and results; officially they are globals of
    the module, which rules out gradient checkpointing and two networks at once.

    Args:
        ndim: 2 or 3.
        dim: Channels C.
        head_dim: Channels of a head.
        mlp_ratio: Hidden width of the MLP in multiples of C.
        drop_path: Stochastic-depth rate of both branches.
        layer_scale: Initial residual scale, or None. DIFFERS: as in the official video networks;
            the image code, where no released network has scales, has a third one for the gain of
            the merged token.
        keep_ratio: Share of the tokens that are kept, above 0 to 1. The kept tokens' scores move
            by the same share towards the new ones (official ``trade_off``, always equal).
        scores_tokens: Whether somebody needs the scores after this block.
    """

    def __init__(
        self,
        ndim: int,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        *,
        keep_ratio: float = 1,
        scores_tokens: bool = True,
    ) -> None:
        super().__init__(ndim, dim, head_dim, mlp_ratio, drop_path, layer_scale)
        self.attn = ClassAttention(dim, head_dim, scores_tokens)
        self.keep_ratio = keep_ratio

    def forward(
        self, x: Tensor, cls_token: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One block.

        Args:
            x: The map ``(B, C, *S)``.
            cls_token: The class token ``(B, 1, C)``.
            scores: Score of each token of the map ``(B, *S)``; not read by a block that keeps all.

        Returns:
            Map, class token and scores after the block; None for scores that nobody needs.
        """
        x = x + self.pos_embed(x)
        tokens, shape = to_tokens(x, self.ndim), x.shape
        if self.keep_ratio == 1:
            tokens, cls_token, scores = self.mix_all(tokens, cls_token)
        else:
            tokens, cls_token, scores = self.mix_kept(tokens, cls_token, scores.flatten(1))
        scores = None if scores is None else scores.reshape(shape[:1] + shape[2:])
        return to_map(tokens, shape, self.ndim), cls_token, scores

    def mix_all(self, x: Tensor, cls_token: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """:meth:`forward` on tokens after the position embedding, where all are kept."""
        tokens, _, scores = self.mix(torch.cat((cls_token, x), 1))
        return tokens[:, 1:], tokens[:, :1], scores

    def mix_kept(
        self, x: Tensor, cls_token: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """:meth:`forward` on tokens after the position embedding, where some are not kept."""
        count = kept_tokens(x.shape[1], self.keep_ratio)
        # DIFFERS: officially all tokens are sorted and their indices travel among the features, as
        # floats, which half precision rounds. The order among the kept ones has no effect.
        kept_BK = scores.topk(count, dim=1, sorted=False).indices
        kept_BKC = kept_BK[..., None].expand(-1, -1, x.shape[2])
        merged = merge(x, scores.scatter(1, kept_BK, 0.0))
        tokens, gain, new = self.mix(torch.cat((cls_token, x.gather(1, kept_BKC), merged), 1))
        x = (x + gain).scatter(1, kept_BKC, tokens[:, 1:-1])
        if new is None:
            return x, tokens[:, :1], None
        moved_BK = torch.lerp(scores.gather(1, kept_BK), new[:, :-1], self.keep_ratio)
        return x, tokens[:, :1], scores.scatter(1, kept_BK, moved_BK)

    def mix(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Attention and MLP.

        Args:
            tokens: ``(B, L, C)``, the class token first.

        Returns:
            The tokens, what the last of them gained apart from stochastic depth ``(B, 1, C)``, and
            the scores of those after the first, or None.
        """
        mixed, scores = self.attn(self.norm1(tokens))
        tokens = self.add(tokens, mixed, self.gamma_1)
        hidden = self.mlp(self.norm2(tokens))
        gain = sum(
            branch[:, -1:].to(tokens.dtype) * (1 if gamma is None else gamma)
            for branch, gamma in ((mixed, self.gamma_1), (hidden, self.gamma_2))
        )
        return self.add(tokens, hidden, self.gamma_2), gain.to(tokens.dtype), scores


def kept_tokens(tokens: int, keep_ratio: float) -> int:
    """The share of a number of tokens, rounded down.

    In integers, so that a compiler can follow it for any size: 0.7 of 10 is 7.
    """
    share = Fraction(keep_ratio).limit_denominator(1000)
    return tokens * share.numerator // share.denominator


def merge(x: Tensor, weights: Tensor) -> Tensor:
    """The mean of tokens by weights that need not add up to 1.

    Args:
        x: ``(B, N, C)``.
        weights: ``(B, N)``.

    Returns:
        ``(B, 1, C)``; zero where all weights are, see :func:`divisor`.
    """
    shares = weights / divisor(weights.sum(1, keepdim=True))
    with without_autocast(x):
        return shares[:, None].to(x.dtype) @ x


def pool_scores(scores: Tensor) -> Tensor:
    """Scores for the map of the next stage: means of 2x2 tokens of a frame, with the old sum.

    Odd sides lose their last row or column, as in the embedding. Shape: ``(B, *S) -> (B, *s)``.
    """
    # Frames, if there are any, take the place of channels.
    pooled = F.avg_pool2d(scores, 2)
    flat = pooled.flatten(1)
    before, after = scores.flatten(1).sum(1, keepdim=True), flat.sum(1, keepdim=True)
    return (flat * (before / divisor(after))).reshape(pooled.shape)


def divisor(total: Tensor) -> Tensor:
    """A sum of scores to divide by.

    DIFFERS: 1 where it is 0, since scores can underflow; officially the result is not a number.
    """
    return torch.where(total > LEAST_TOTAL, total, 1)
