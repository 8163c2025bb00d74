# SPDX-License-Identifier: Apache-2.0
"""Blocks of the light archs: full attention for the tokens that matter, one step for the others.

A class token that runs beside the map scores every token by how much it attends to it. A block
keeps the best share of the tokens, merges the others into one, weighted by their scores, and lets
the class token, the kept tokens and the merged one attend to each other. What the merged token
gains is added to all tokens it stands for, so that no token is lost and the map keeps its size.

Shapes as in ``attention.py``; ``K`` kept tokens, ``L`` tokens that attend: class, kept, merged.
Source: Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer_light.py``,
``video_classification/slowfast/models/uniformer_light.py``; the selection is that of Evo-ViT, arXiv
2108.01390.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .attention import Attention
from .blocks import GlobalBlock, mlp_matrices
from .functional import without_autocast
from .fused import folded_linear, norm_linear
from .fused_mlp import norm_mlp
from .layers import add_convolved
from .prepared import Weights, matrix_of, prepare

# Sums of scores below it count as 0: gradients through them would overflow float32.
LEAST_TOTAL = 1e-30


class ClassAttention(Attention):
    """Attention among tokens whose first is the class token, with that token's view of the others.

    Args:
        dim: Channels C.
        head_dim: Channels of a head D.
    """

    def forward(self, x_BLC: Tensor, scored: int | None) -> tuple[Tensor, Tensor | None]:
        """Attend among all tokens.

        Args:
            x_BLC: Tokens, the class token first.
            scored: Number of tokens after it to score; None for no scores.

        Returns:
            ``y_BLC``, and the scores ``(B, scored)``, float32 at least, or None.
        """
        qkv_BLK = self.qkv(x_BLC)
        scores = None if scored is None else self.class_scores(qkv_BLK, scored)
        return self.proj(self.attend(qkv_BLK)), scores

    def class_scores(self, qkv_BLK: Tensor, scored: int) -> Tensor:
        """Attention weights from the class token to the ``scored`` tokens after it, head mean.

        One row of the attention matrix, which the fused attention never holds.
        """
        C = qkv_BLK.shape[-1] // 3
        q_BM1D, k_BMLD = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (qkv_BLK[:, :1, :C], qkv_BLK[..., C : 2 * C])
        )
        logits_BM1L = (q_BM1D * self.head_dim**-0.5) @ k_BMLD.transpose(-2, -1)
        weights_BM1L = logits_BM1L.softmax(-1, dtype=_score_dtype(logits_BM1L))
        return weights_BM1L.mean(1)[:, 0, 1 : 1 + scored]


class HourglassBlock(GlobalBlock):
    """Attention block that keeps a share of the tokens (official ``EvoSABlock``).

    DIFFERS: scores and the class token are arguments and results; officially they are globals of
    the module, which rules out gradient checkpointing and two networks at once.

    Args:
        rank: 2 or 3.
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

    attention_type = ClassAttention

    def __init__(
        self,
        rank: int,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        *,
        keep_ratio: float = 1,
        scores_tokens: bool = True,
    ) -> None:
        super().__init__(rank, dim, head_dim, mlp_ratio, drop_path, layer_scale)
        self.attn = ClassAttention(dim, head_dim)
        self.keep_ratio = keep_ratio
        self.scores_tokens = scores_tokens

    def forward(
        self,
        x_BSC: Tensor,
        cls_B1C: Tensor,
        scores_BS: Tensor | None,
        weights: Weights | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One block.

        Args:
            x_BSC: The map.
            cls_B1C: The class token.
            scores_BS: Score of each token of the map; not read by a block that keeps all.
            weights: What formulas use; prepared here if they are not given.

        Returns:
            Map, class token and scores after the block; None for scores that nobody needs.
        """
        weights = weights or prepare((self,), x_BSC)
        x_BSC, _ = add_convolved(self.pos_embed, x_BSC, weights)
        x_BNC = x_BSC.flatten(1, -2)
        if self.keep_ratio == 1:
            tokens_BLC = torch.cat((cls_B1C, x_BNC), 1)
            tokens_BLC, _, scores_BN = self.mix_tokens(tokens_BLC, x_BNC.shape[1], weights)
            cls_B1C, x_BNC = tokens_BLC[:, :1], tokens_BLC[:, 1:]
        else:
            x_BNC, cls_B1C, scores_BN = self.mix_kept(x_BNC, cls_B1C, scores_BS.flatten(1), weights)
        scores_BS = None if scores_BN is None else scores_BN.reshape(x_BSC.shape[:-1])
        return x_BNC.reshape(x_BSC.shape), cls_B1C, scores_BS

    def mix_kept(
        self, x_BNC: Tensor, cls_B1C: Tensor, scores_BN: Tensor, weights: Weights | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """:meth:`forward` after the position embedding, where some tokens are not kept."""
        count = kept_tokens(x_BNC.shape[1], self.keep_ratio)
        # DIFFERS: officially all tokens are sorted and their indices travel among the features, as
        # floats, which half precision rounds. The order among the kept ones has no effect.
        kept_BK = scores_BN.topk(count, dim=1, sorted=False).indices
        kept_BKC = kept_BK[..., None].expand(-1, -1, x_BNC.shape[2])
        merged_B1C = merge(x_BNC, scores_BN.scatter(1, kept_BK, 0.0))
        tokens_BLC, gain_B1C, new_BK = self.mix_tokens(
            torch.cat((cls_B1C, x_BNC.gather(1, kept_BKC), merged_B1C), 1), count, weights
        )
        cls_B1C, y_BKC, _ = tokens_BLC.split((1, count, 1), 1)
        x_BNC = (x_BNC + gain_B1C).scatter(1, kept_BKC, y_BKC)
        if new_BK is None:
            return x_BNC, cls_B1C, None
        moved_BK = torch.lerp(scores_BN.gather(1, kept_BK), new_BK, self.keep_ratio)
        return x_BNC, cls_B1C, scores_BN.scatter(1, kept_BK, moved_BK)

    def mix_tokens(
        self, tokens_BLC: Tensor, scored: int, weights: Weights | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Attention and MLP.

        Args:
            tokens_BLC: Class token first.
            scored: Number of tokens after it to score.
            weights: What formulas use.

        Returns:
            The tokens, what the last of them gained apart from stochastic depth ``(B, 1, C)``, and
            the scores or None.
        """
        wanted = scored if self.scores_tokens else None
        tokens_BLC, mixed, scores = self.attend_to_class(tokens_BLC, wanted, weights)
        tokens_BLC = self.add(tokens_BLC, mixed, self.gamma_1)
        matrices = mlp_matrices(self.mlp, weights)
        if matrices is None:
            hidden = self.mlp(tokens_BLC, self.norm2)
        else:
            tokens_BLC, hidden = norm_mlp(self.norm2, *matrices, tokens_BLC, None, adds=False)
        gain_B1C = sum(
            branch[:, -1:].to(tokens_BLC.dtype) * (1 if gamma is None else gamma)
            for branch, gamma in ((mixed, self.gamma_1), (hidden, self.gamma_2))
        )
        return self.add(tokens_BLC, hidden, self.gamma_2), gain_B1C.to(tokens_BLC.dtype), scores

    def attend_to_class(
        self, tokens_BLC: Tensor, scored: int | None, weights: Weights | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The tokens as they are, attention on their norm, and scores or None."""
        attention = self.attn
        qkv = matrix_of(weights, attention.qkv) if type(attention) is ClassAttention else None
        if qkv is None:
            return tokens_BLC, *attention(self.norm1(tokens_BLC), scored)
        tokens_BLC, qkv_BLK = norm_linear(self.norm1, qkv, tokens_BLC, None)
        scores = None if scored is None else attention.class_scores(qkv_BLK, scored)
        proj = weights.matrices[attention.proj]
        return tokens_BLC, folded_linear(proj, attention.attend(qkv_BLK)), scores


def kept_tokens(tokens: int, keep_ratio: float) -> int:
    """The share of a number of tokens, rounded down.

    In integers, so that a compiler can follow it for any size: 0.7 of 10 is 7.
    """
    share = Fraction(keep_ratio).limit_denominator(1000)
    return tokens * share.numerator // share.denominator


def merge(x_BNC: Tensor, weights_BN: Tensor) -> Tensor:
    """The mean of tokens by weights that need not add up to 1. Shape: ``x_BNC -> y_B1C``.

    Zero where all weights are, see :func:`divisor`.
    """
    shares_BN = weights_BN / divisor(weights_BN.sum(1, keepdim=True))
    with without_autocast(x_BNC):
        return shares_BN[:, None].to(x_BNC.dtype) @ x_BNC


def pool_scores(scores_BS: Tensor) -> Tensor:
    """Scores for the map of the next stage: means of 2x2 tokens of a frame, with the old sum.

    Odd sides lose their last row or column, as in the embedding.
    """
    # Frames, if there are any, take the place of channels.
    pooled_BS = F.avg_pool2d(scores_BS, 2)
    before_B, after_B = (x_BS.flatten(1).sum(1) for x_BS in (scores_BS, pooled_BS))
    return pooled_BS * (before_B / divisor(after_B)).view(-1, *(1,) * (scores_BS.ndim - 1))


def divisor(total: Tensor) -> Tensor:
    """A sum of scores to divide by.

    DIFFERS: 1 where it is 0, since scores can underflow; officially the result is not a number.
    """
    return torch.where(total > LEAST_TOTAL, total, 1)


def _score_dtype(x: Tensor) -> torch.dtype:
    """float32, or float64 for such maps: shares of thousands of tokens need more than half."""
    return torch.promote_types(x.dtype, torch.float32)
