# SPDX-License-Identifier: Apache-2.0
"""A whole toolbox model from published weights or a training checkpoint, entirely or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor, nn

from ...labels import permutation
from ...models.arch import arch_name
from ...models.uniformer import UniFormer
from ...recipes import Recipe
from ...weights import CheckpointError
from ...weights.identify import identify
from ...weights.key_schemes import HEADS, DetectedScheme, write_scheme

_KEY_SCHEMES = {'cls': 'mmpretrain', 'video': 'mmaction2', 'pose': 'mmpose'}
_FEW = 4


@dataclass(frozen=True)
class LoadedModel:
    """What was loaded.

    Attributes:
        path: The file.
        sha256: Its digest.
        tensors: Number of tensors of the model that were filled.
        class_order: How the classifier's rows are ordered now, and how that is known; empty
            where there is one order only.
    """

    path: str
    sha256: str
    tensors: int
    class_order: str = ''


def load_model(
    model: nn.Module,
    checkpoint: str | PathLike,
    task: str,
    *,
    recipe: Recipe | None = None,
    class_order: str | None = None,
) -> LoadedModel:
    """Fill every tensor of a model built by a toolbox.

    Args:
        model: Classifier, detector, segmentor, pose estimator or recogniser with one UniFormer.
        checkpoint: Path or ``uniformer://`` name, in any key scheme that the zoo's files have.
        task: Key of :data:`uniformer_mm.recipes.TOOLBOXES`.
        recipe: The published result that the weights are of, if any.
        class_order: Order of the labels (see :mod:`uniformer_mm.labels`); rows of the classifier
            are brought into it.

    Returns:
        The account.

    Raises:
        CheckpointError: A tensor of the model is not in the file, has another shape, or the file
            holds one that the model lacks.
    """
    found = identify(checkpoint)
    file, detected, provenance = found.file, found.detected, found.provenance
    try:
        for network in (m for m in model.modules() if isinstance(m, UniFormer)):
            provenance.check_head_dim(network.arch, arch_name(network.arch) or 'custom')
        state, words = dict(file.state), ''
        if class_order is not None:
            known, words = _head_order(detected, provenance, recipe, class_order)
            rows = torch.tensor(permutation(known, class_order))
            for name in (f'{head}.{part}' for head in HEADS for part in ('weight', 'bias')):
                key = detected.file_keys.get(name)
                if key and len(state[key]) != len(rows):
                    raise CheckpointError(
                        f'the classifier has {len(state[key])} classes, {class_order} has '
                        f'{len(rows)}; choose the row that the weights belong to.'
                    )
                if key:
                    state[key] = state[key][rows]
        state = _toolbox_keys(model, state, detected, task)
        _check_fit(model, state)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from None
    target = model.state_dict()
    filled = {key: value for key, value in state.items() if key in target}
    model.load_state_dict({**target, **filled}, strict=True)
    return LoadedModel(str(file.path), file.sha256, len(filled), words)


def _head_order(
    detected: DetectedScheme, provenance, recipe: Recipe | None, wanted: str
) -> tuple[str, str]:
    """Order of the file's classifier, and in words how it is known."""
    if provenance.class_order:
        return provenance.class_order, f'{provenance.class_order} ({provenance.class_order_source})'
    if detected.scheme == 'official' and recipe is not None and recipe.row.class_order:
        order = recipe.row.class_order
        return order, f'{order} (as in all files in the official keys)'
    return wanted, f'{wanted} (not stated by the file; taken to be that of the labels)'


def _toolbox_keys(
    model: nn.Module, state: dict[str, Tensor], detected: DetectedScheme, task: str
) -> dict[str, Tensor]:
    if 'backbone.head.weight' in model.state_dict() and not detected.others:
        # A classifier of this package inside of a toolbox's: its heads lie in the trunk.
        official = {name: state[key] for name, key in detected.file_keys.items()}
        return {f'backbone.{name}': value for name, value in official.items()}
    return write_scheme(state, detected, _KEY_SCHEMES.get(task, 'official'))


def _check_fit(model: nn.Module, state: dict[str, Tensor]) -> None:
    target = model.state_dict()
    counters = any(key.endswith('num_batches_tracked') for key in state)
    missing = [
        key
        for key in target
        if key not in state and (counters or not key.endswith('num_batches_tracked'))
    ]
    # Pose estimators use the last map only; official files keep the norms of the others.
    unused = [
        key
        for key in state
        if key not in target and not key.startswith(tuple(f'backbone.norm{i}.' for i in (1, 2, 3)))
    ]
    shapes = [
        f'{key} {tuple(state[key].shape)} instead of {tuple(target[key].shape)}'
        for key in target
        if key in state and state[key].shape != target[key].shape
    ]
    problems = [
        f'{len(keys)} {words} ({", ".join(keys[:_FEW])})'
        for words, keys in (
            ('tensors of the model are not in it', missing),
            ('of its tensors have no place in the model', unused),
            ('tensors have another shape', shapes),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f'it does not fill the model: {"; ".join(problems)}. Choose the row or the config that '
            'it was trained with.'
        )
