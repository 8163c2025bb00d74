# SPDX-License-Identifier: Apache-2.0
"""Small networks with distinct weights, and files in the layouts that authors publish."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier

# The file of the row that downloads are tested with.
FILE = 'uniformer_small_in1k.pth'
TINY = {'depths': (1, 1, 2, 1), 'dims': (32, 64, 128, 256), 'head_dim': 32}
CLASSIFIERS = {2: UniFormer2dClassifier, 3: UniFormer3dClassifier}


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A tensor for each key whose values depend on the key, so that no two are alike."""
    state = {}
    for key, shape in shapes.items():
        if key.endswith('num_batches_tracked'):
            state[key] = torch.tensor(zlib.crc32(key.encode()) % 1000)
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        value = torch.randn(tuple(shape), generator=generator) * 0.05
        state[key] = value.abs() + 0.5 if key.endswith('running_var') else value
    return state


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Official keys and shapes of a network of this package."""
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def classifier_state(
    arch: str | dict = TINY, *, ndim: int = 2, classes: int = 10, **options
) -> dict[str, Tensor]:
    """A filled state dict of a classifier, by official keys."""
    return filled(shapes_of(meta_model(CLASSIFIERS[ndim], arch, num_classes=classes, **options)))


def save(path: Path, content: object) -> Path:
    """Save with torch and hand the path back."""
    torch.save(content, path)
    return path


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same keys, types and values."""
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def cheap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same shapes, all in the memory of the largest: files of large archs stay small."""
    zeros = {
        dtype: torch.zeros(max(v.numel() for v in state.values() if v.dtype is dtype), dtype=dtype)
        for dtype in {value.dtype for value in state.values()}
    }
    return {
        key: zeros[value.dtype][: value.numel()].view(value.shape) for key, value in state.items()
    }


def meta_model(kind: type[nn.Module], arch: str | dict, **options) -> nn.Module:
    """A network without storage: large archs cost nothing, and loading into it changes nothing."""
    unchanged = mock.patch.multiple(
        nn.init, trunc_normal_=_as_it_is, kaiming_uniform_=_as_it_is, uniform_=_as_it_is
    )
    with unchanged, torch.device('meta'):
        return kind(arch, **options)


def _as_it_is(tensor: Tensor, *_: object, **__: object) -> Tensor:
    return tensor


def cheap_file(
    path: Path, arch: str | dict, *, ndim: int = 2, classes: int = 1000, **options
) -> Path:
    """A file of an arch's classifier in official layout, a few megabytes large."""
    model = meta_model(CLASSIFIERS[ndim], arch, num_classes=classes, **options)
    return save(path, {'model': cheap(model.state_dict())})


def names(folder: Path) -> list[str]:
    """Files in a folder, locks aside."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != '.lock')
