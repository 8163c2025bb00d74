# SPDX-License-Identifier: Apache-2.0
"""UniFormer with its own classification heads, in exactly the official state-dict keys.

Shapes: ``B`` batch, ``K`` classes, ``N`` tokens, ``C`` channels, ``S`` the axes ``H W`` or
``T H W``. Source: Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer.py``,
``token_labeling/tlt/models/uniformer.py``, ``video_classification/slowfast/models/uniformer.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..registry import MODELS, register
from .blocks import init_block
from .uniformer import UniFormer2d, UniFormer3d

# Weight of the dense logits in evaluation, and the total stride of the mixed map to the tokens.
AUX_WEIGHT = 0.5
MIX_STRIDE = 8

Box = tuple[int, int, int, int]


class _Classifier:
    """Mixin over a backbone front: final BatchNorm, mean over positions, linear head(s).

    Args:
        arch: As in :class:`~uniformer_mm.models.uniformer.UniFormer`; archs with ``token_labels``
            get the dense head ``aux_head``.
        num_classes: Width K of the head; 0 leaves the pooled features (B, C) as output.
        mix_token: Whether token-labelling archs mix token maps in training.
        as_tuple: Return the logits in a tuple of one, as mmpretrain expects of a backbone.
        **options: The backbone's options, outputs aside.
    """

    def __init__(
        self, arch, *, num_classes: int, mix_token: bool = True, as_tuple: bool = False, **options
    ) -> None:
        super().__init__(arch, out_indices=(3,), out_norm='bn', as_tuple=as_tuple, **options)
        if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
            raise ValueError(f'num_classes={num_classes!r} must be 0 (no head) or positive.')
        dim = self.arch.dims[-1]
        self.num_classes = num_classes
        self.mix_token = mix_token
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        if self.arch.token_labels and num_classes:
            self.aux_head = nn.Linear(dim, num_classes)
            init_block(self.aux_head)
        init_block(self.head)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor] | tuple[Tensor, Tensor, Box]:
        """Classify.

        Args:
            x: Images ``(B, C, H, W)`` or clips ``(B, C, T, H, W)``.

        Returns:
            Logits ``(B, K)``, as ``as_tuple`` says. A token-labelling arch adds half the maximum
            over the tokens' logits in evaluation, and in training returns the logits, the tokens'
            logits ``(B, N, K)`` (un-mixed) and the mixed box in tokens (top, left, bottom, right).
        """
        if not hasattr(self, 'aux_head'):
            *_, x_BCS = self.iter_stages(x)
            return self._output(self.head(self.norm(x_BCS).flatten(2).mean(-1)))
        if not self.training:
            *_, x_BCS = self.iter_stages(x)
            x_BCN = self.norm(x_BCS).flatten(2)
            dense_BNK = self.aux_head(x_BCN.transpose(1, 2))
            return self._output(self.head(x_BCN.mean(-1)) + AUX_WEIGHT * dense_BNK.amax(1))
        return self._forward_mixed(x)

    def _output(self, logits_BK: Tensor) -> Tensor | tuple[Tensor]:
        return (logits_BK,) if self.as_tuple else logits_BK

    def _forward_mixed(self, x: Tensor) -> tuple[Tensor, Tensor, Box]:
        box = (0, 0, 0, 0)

        def mix(x_BCS: Tensor) -> Tensor:
            nonlocal box
            if self.mix_token:
                box = sample_box(*x_BCS.shape[-2:])
            return swap_box(x_BCS, box)

        *_, x_BCS = self.iter_stages(x, after_stem=mix)
        x_BCS = self.norm(x_BCS)
        logits_BK = self.head(x_BCS.flatten(2).mean(-1))
        token_box = tuple(edge // MIX_STRIDE for edge in box)
        dense_BKS = self.aux_head(x_BCS.movedim(1, -1)).movedim(-1, 1)
        dense_BNK = swap_box(dense_BKS, token_box).flatten(2).transpose(1, 2)
        return logits_BK, dense_BNK, token_box


@register(MODELS)
class UniFormer2dClassifier(_Classifier, UniFormer2d):
    """Image classifier. See :class:`_Classifier`."""


class UniFormer3dClassifier(_Classifier, UniFormer3d):
    """Clip classifier. See :class:`_Classifier`."""


def sample_box(height: int, width: int) -> Box:
    """Draw a mix-token box: area share 1 - lam with lam ~ Beta(1, 1), uniform centre, clipped.

    DIFFERS: the draws come from torch's generator, the official code's from NumPy's.

    Args:
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        Top, left, bottom and right edge, in positions of the map.
    """
    share = math.sqrt(1 - torch.rand(()).item())
    half_h, half_w = int(height * share) // 2, int(width * share) // 2
    row, col = torch.randint(height, ()).item(), torch.randint(width, ()).item()
    return (
        max(row - half_h, 0),
        max(col - half_w, 0),
        min(row + half_h, height),
        min(col + half_w, width),
    )


def swap_box(x_BCS: Tensor, box: Box) -> Tensor:
    """The map with ``box`` (on its last two axes) taken from the batch in reverse order."""
    top, left, bottom, right = box
    swapped = x_BCS.clone()
    swapped[..., top:bottom, left:right] = x_BCS.flip(0)[..., top:bottom, left:right]
    return swapped
