# SPDX-License-Identifier: Apache-2.0
"""``create_model``: networks by name, for use without any toolbox."""

from __future__ import annotations

import difflib
from os import PathLike
from typing import TYPE_CHECKING

from . import models
from .checks import check_bool
from .models.arch import NUM_STAGES, available_archs

if TYPE_CHECKING:
    from torch import nn

# prefix: (dense backbone, classifier, classes of its usual pre-training data). By name: who only
# lists models needs no PyTorch.
_FAMILIES = {
    'uniformer_': ('UniFormer2d', 'UniFormer2dClassifier', 1000),
    'uniformer3d_': ('UniFormer3d', 'UniFormer3dClassifier', 400),
}
# Output form and initialisation follow from the arguments of create_model.
_SETTLED_OPTIONS = ('init_cfg', 'out_norm', 'as_tuple')


def list_models() -> list[str]:
    """Names that :func:`create_model` takes."""
    return [prefix + arch for prefix in _FAMILIES for arch in available_archs()]


def create_model(
    name: str,
    *,
    checkpoint: str | PathLike | None = None,
    num_classes: int | None = None,
    features_only: bool = False,
    **options,
) -> nn.Module:
    """Build a UniFormer by name.

    Args:
        name: ``uniformer_<arch>`` or ``uniformer3d_<arch>``; see :func:`list_models`.
        checkpoint: File, ``uniformer://`` name or ``http(s)://`` address to load; every tensor must
            be accounted for.
        num_classes: Width of the classifier; default 1000 in 2-D, 400 in 3-D. 0 returns the
            pooled features. Not allowed with ``features_only``.
        features_only: Return the dense backbone: a tuple of stage maps, each after its own
            LayerNorm (``norm1`` to ``norm4``), instead of a classifier.
        **options: ``attention``, ``window_size``, ``out_indices`` (with ``features_only``),
            ``head_dim``, ``layer_scale``, ``drop_path_rate``, ``norm_eval``, ``frozen_stages``,
            ``with_cp``, ``patch_kernel_t``, ``in_channels``, ``residual_dtype``.

    Returns:
        The network in training mode, on the default device. A classifier returns logits; in
        training those of ``*_tl``, ``xxs`` and ``xs`` return a tuple that begins with them (see
        :meth:`UniFormer2dClassifier.forward`), which their loss has to take.

    Raises:
        ValueError: Unknown name or option, or options that do not fit together.

    Example:
        >>> model = create_model('uniformer_small', features_only=True).eval()
        >>> [tuple(y.shape) for y in model(torch.zeros(1, 3, 224, 224))]
        [(1, 64, 56, 56), (1, 128, 28, 28), (1, 320, 14, 14), (1, 512, 7, 7)]
    """
    prefix = next((p for p in _FAMILIES if str(name).startswith(p)), None)
    if prefix is None or name not in list_models():
        close = difflib.get_close_matches(str(name), list_models(), n=3)
        raise ValueError(
            f'name={name!r} is not known'
            + (f'; did you mean one of {close}?' if close else '; see uniformer_mm.list_models().')
        )
    check_bool('features_only', features_only)
    from .models.options import check_options, option_names
    from .models.uniformer import UniFormer

    check_options(options, [o for o in option_names(UniFormer) if o not in _SETTLED_OPTIONS])
    dense, classifier, default_classes = _FAMILIES[prefix]
    arch = name.removeprefix(prefix)
    if features_only:
        if num_classes is not None:
            raise ValueError(
                f'num_classes={num_classes!r} has no use with features_only=True; leave it out.'
            )
        options.setdefault('out_indices', tuple(range(NUM_STAGES)))
        model = getattr(models, dense)(arch, out_norm='ln', as_tuple=True, **options)
    else:
        if 'out_indices' in options:
            raise ValueError(
                f'out_indices={options["out_indices"]!r} has no use in a classifier; add '
                'features_only=True.'
            )
        classes = default_classes if num_classes is None else num_classes
        model = getattr(models, classifier)(arch, num_classes=classes, **options)
    if checkpoint is not None:
        from .weights import load_weights

        load_weights(model, checkpoint)
    return model
