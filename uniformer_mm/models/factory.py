# SPDX-License-Identifier: Apache-2.0
"""``create_model``: networks by name, for use without any toolbox."""

from __future__ import annotations

import difflib
import inspect
from os import PathLike

from torch import nn

from ..weights import load_weights
from .arch import NUM_STAGES, available_archs
from .classifier import UniFormer2dClassifier, UniFormer3dClassifier
from .uniformer import UniFormer, UniFormer2d, UniFormer3d

# prefix: (dense backbone, classifier, classes of its usual pre-training data)
_FAMILIES = {
    'uniformer_': (UniFormer2d, UniFormer2dClassifier, 1000),
    'uniformer3d_': (UniFormer3d, UniFormer3dClassifier, 400),
}
_OPTIONS = [
    name
    for name in inspect.signature(UniFormer.__init__).parameters
    if name not in ('self', 'arch', 'init_cfg', 'out_norm', 'as_tuple')
]
# Arguments of the official code and its ports, and what says the same here.
_OFFICIAL_OPTIONS = {
    'windows': "attention='window'",
    'window': "attention='window'",
    'use_window': "attention='window'",
    'hybrid': "attention='hybrid'",
    'use_hybrid': "attention='hybrid'",
    'windows_size': 'window_size',
    'split': "attention='divided'",
    'std': 'patch_kernel_t=3',
    'use_checkpoint': 'with_cp=True',
    'checkpoint_num': 'with_cp=(n1, n2, n3, n4)',
    'in_chans': 'in_channels',
    'pretrained': 'checkpoint=...',
    'pretrained_path': 'checkpoint=...',
}


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
        checkpoint: File or ``uniformer://`` name to load; every tensor must be accounted for.
        num_classes: Width of the classifier; default 1000 in 2-D, 400 in 3-D. 0 returns the
            pooled features. Not allowed with ``features_only``.
        features_only: Return the dense backbone: a tuple of stage maps, each after its own
            LayerNorm (``norm1`` to ``norm4``), instead of a classifier.
        **options: ``attention``, ``window_size``, ``out_indices`` (with ``features_only``),
            ``head_dim``, ``layer_scale``, ``drop_path_rate``, ``norm_eval``, ``frozen_stages``,
            ``with_cp``, ``patch_kernel_t``, ``in_channels``.

    Returns:
        The network in training mode, on the default device.

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
    _check_options(options)
    dense, classifier, default_classes = _FAMILIES[prefix]
    arch = name.removeprefix(prefix)
    if features_only:
        if num_classes is not None:
            raise ValueError(
                f'num_classes={num_classes!r} has no use with features_only=True; leave it out.'
            )
        options.setdefault('out_indices', tuple(range(NUM_STAGES)))
        model = dense(arch, out_norm='ln', as_tuple=True, **options)
    else:
        if 'out_indices' in options:
            raise ValueError(
                f'out_indices={options["out_indices"]!r} has no use in a classifier; add '
                'features_only=True.'
            )
        classes = default_classes if num_classes is None else num_classes
        model = classifier(arch, num_classes=classes, **options)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model


def _check_options(options: dict) -> None:
    for option in options:
        if option in _OFFICIAL_OPTIONS:
            raise ValueError(f'option {option!r} is written {_OFFICIAL_OPTIONS[option]} here.')
        if option not in _OPTIONS:
            close = difflib.get_close_matches(option, _OPTIONS, n=1)
            raise ValueError(
                f'option {option!r} is not known; '
                + (f'did you mean {close[0]!r}?' if close else f'use some of {_OPTIONS}.')
            )
