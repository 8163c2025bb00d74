# SPDX-License-Identifier: Apache-2.0
"""UniFormer with its own classification heads, in exactly the official state-dict keys.

Shapes: ``B`` batch, ``K`` classes, ``N`` tokens, ``C`` channels, ``S`` the axes ``H W`` or
``T H W``. Source: Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer.py``,
``image_classification/models/uniformer_light.py``, ``token_labeling/tlt/models/uniformer.py``,
``video_classification/slowfast/models/uniformer.py``.
"""

from __future__ import annotations

import torch
from torch import Size, Tensor, nn

from ..checks import check_bool, is_integer
from ..layers import PATCH_NORM_EPS, to_map, to_tokens
from ..ops.autocast import native_autocast
from ..registry import MODELS, register
from .blocks import init_block
from .uniformer import UniFormer2d, UniFormer3d

# Weight of the dense logits in evaluation, and the total stride of the mixed map to the tokens.
AUX_WEIGHT = 0.5
MIX_STRIDE = 8

Box = tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int]
Logits = Tensor | tuple[Tensor] | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Box]


class _Classifier:
    """Mixin over a backbone front: final BatchNorm, mean over positions, linear head(s).

    In training, archs with ``token_labels`` (``*_tl``) and hourglass archs (``xxs``, ``xs``) return
    a tuple, for losses with a term for the tokens or the class token; see :meth:`forward`.

    Args:
        arch: As in :class:`~uniformer_mm.models.uniformer.UniFormer`; archs with ``token_labels``
            get the dense head ``aux_head``, hourglass archs the class token's ``norm_cls`` and
            ``head_cls``.
        num_classes: Width K of the head; 0 leaves the pooled features (B, C) as output.
        mix_token: Whether token-labelling archs mix token maps in training.
        as_tuple: Return the logits in a tuple of one, as mmpretrain expects of a backbone.
        **options: The backbone's options, outputs aside.
    """

    def __init__(
        self, arch, *, num_classes: int, mix_token: bool = True, as_tuple: bool = False, **options
    ) -> None:
        for name in ('out_indices', 'out_norm'):
            if name in options:
                raise ValueError(
                    f'{name}={options[name]!r} has no use in a classifier; leave it out, or take '
                    'the backbone.'
                )
        super().__init__(arch, out_indices=(3,), out_norm='bn', as_tuple=as_tuple, **options)
        if not is_integer(num_classes) or num_classes < 0:
            raise ValueError(f'num_classes={num_classes!r} must be 0 (no head) or positive.')
        dim = self.arch.dims[-1]
        self.num_classes = num_classes
        self.mix_token = check_bool('mix_token', mix_token)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        if self.arch.token_labels and num_classes:
            self.aux_head = nn.Linear(dim, num_classes)
            init_block(self.aux_head)
        if self.arch.keep_ratios is not None and num_classes:
            self.norm_cls = nn.LayerNorm(dim, eps=PATCH_NORM_EPS)
            self.head_cls = nn.Linear(dim, num_classes)
            init_block(self.head_cls)
        init_block(self.head)

    def forward(self, x: Tensor) -> Logits:
        """Classify.

        Args:
            x: Images ``(B, C, H, W)`` or clips ``(B, C, T, H, W)``.

        Returns:
            Logits ``(B, K)``, as ``as_tuple`` says. A token-labelling arch adds half the maximum
            over the tokens' logits in evaluation, and in training returns the logits, the tokens'
            logits ``(B, N, K)`` (un-mixed) and the mixed box in tokens (top, left, bottom, right),
            four integer scalars. An hourglass arch returns in training the logits and those of its
            class token, each ``(B, K)``; in evaluation the class token has no say.
        """
        self.check_input(x)
        with native_autocast(x, self.cpu_dtypes):
            return self._classify(x)

    def _classify(self, x: Tensor) -> Logits:
        dense, box = hasattr(self, 'aux_head'), (0, 0, 0, 0)

        def mix(x: Tensor) -> Tensor:
            nonlocal box
            box = sample_box(x.shape[-2], x.shape[-1], device=x.device)
            return swap_box(x, box)

        mixes = dense and self.training and self.mix_token
        (x,), carried = self.run_stages(x, mix if mixes else None)
        x = self.normalise(self.num_stages - 1, x)
        logits = self.head(x.flatten(2).mean(2))
        if self.training and hasattr(self, 'head_cls'):
            return logits, self.head_cls(self.norm_cls(carried[0][:, 0]))
        if dense:
            token_logits = self.aux_head(to_tokens(x, self.ndim))
            if self.training:
                box = tuple(edge // MIX_STRIDE for edge in box)
                return logits, self._unmix(token_logits, x.shape, box), box
            logits = logits + AUX_WEIGHT * token_logits.amax(1)
        return (logits,) if self.as_tuple else logits

    def _unmix(self, tokens: Tensor, shape: Size, box: Box) -> Tensor:
        """:func:`swap_box` for the tokens ``(B, N, K)`` of a map of ``shape``."""
        return to_tokens(swap_box(to_map(tokens, shape, self.ndim), box), self.ndim)


@register(MODELS)
class UniFormer2dClassifier(_Classifier, UniFormer2d):
    """Image classifier. See :class:`_Classifier`."""


@register(MODELS)
class UniFormer3dClassifier(_Classifier, UniFormer3d):
    """Clip classifier. See :class:`_Classifier`."""


def sample_box(height: int, width: int, device: torch.device | str | None = None) -> Box:
    """Draw a mix-token box: area share 1 - lam with lam ~ Beta(1, 1), uniform centre, clipped.

    DIFFERS: the draws come from torch's generator, the official code's from NumPy's.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        device: Where to draw; the box stays there, so that nothing waits for it.

    Returns:
        Top, left, bottom and right edge, in positions of the map: integer scalars.
    """
    share = (1 - torch.rand((), device=device)).sqrt()
    half_h, half_w = ((side * share).long() // 2 for side in (height, width))
    row, col = (torch.randint(side, (), device=device) for side in (height, width))
    return (
        (row - half_h).clamp(min=0),
        (col - half_w).clamp(min=0),
        (row + half_h).clamp(max=height),
        (col + half_w).clamp(max=width),
    )


def swap_box(x: Tensor, box: Box) -> Tensor:
    """The map ``(B, C, *S)`` with ``box`` (rows, columns) taken from the batch in reverse order."""
    top, left, bottom, right = box
    rows = torch.arange(x.shape[-2], device=x.device)
    cols = torch.arange(x.shape[-1], device=x.device)
    inside_H, inside_W = (rows >= top) & (rows < bottom), (cols >= left) & (cols < right)
    return torch.where(inside_H[:, None] & inside_W, x.flip(0), x)
