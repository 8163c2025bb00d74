# SPDX-License-Identifier: Apache-2.0
"""A row's published metric against one measured here with its test protocol.

Image classification: short side to size / crop_pct (bicubic), centre crop, one view, float32.
Sources: Sense-X/UniFormer @52a0415 ``image_classification/datasets.py``,
``token_labeling/validate.py`` (crop_pct 0.9). Which normalisation the token-labelling weights were
trained with is not settled, so both are measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import CheckpointError
from ..models.classifier import UniFormer2dClassifier
from ..weights.loader import load_weights
from ..weights.zoo import SCHEME, Row, find_row
from .class_ids import class_ids
from .verdict import TOLERANCES, of_published_length, within

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FULL_SET = 50_000

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Measurement:
    """One measured accuracy.

    Attributes:
        row: Zoo row.
        normalisation: Mean and standard deviation of pixels in 0..1.
        top1: Accuracy in percent.
        top5: Accuracy in percent.
        images: Number of images.
        published: The row's top-1.
        all_classes: Whether each class of the row has a folder.
    """

    row: str
    normalisation: Normalisation
    top1: float
    top5: float
    images: int
    published: float
    all_classes: bool = True

    @property
    def comparable(self) -> bool:
        """Whether the whole validation set was used, a few lost files aside."""
        return self.all_classes and of_published_length(self.images, FULL_SET)

    @property
    def agrees(self) -> bool | None:
        """Whether top-1 is within the tolerance; None where it cannot be told."""
        return within(self.top1, self.published, TOLERANCES['cls']) if self.comparable else None


def verify_row(
    name: str,
    data: str | PathLike,
    *,
    checkpoint: str | PathLike | None = None,
    classes: str | PathLike | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device = 'cpu',
) -> list[Measurement]:
    """Measure a classification row on a folder of images.

    Args:
        name: Zoo row.
        data: Folder with one subfolder of images for each class (``imagenet/val``).
        checkpoint: File to use instead of the row's own.
        classes: Where the folder has only some classes: a JSON object of subfolder name to class
            id, or a text file of all subfolder names in the order of ids.
        batch_size: Images in a batch.
        workers: Processes that decode images.
        device: Where the network runs.

    Returns:
        One measurement for each normalisation in question.

    Raises:
        ValueError: A row of another task, a folder that does not fit, a photo that cannot be read,
            or a device that is not there.
        CheckpointError: See :func:`~uniformer_mm.weights.loader.load_weights`.
    """
    row = find_row(name)
    if row.dataset != 'imagenet1k':
        raise ValueError(
            f'{row.id}: verify measures image classification rows; {row.family.task} is tested '
            'with its toolbox and config (mim test).'
        )
    _check_device(device)
    loader = _loader(row, Path(data), classes, batch_size, workers)
    model = UniFormer2dClassifier(
        row.arch,
        num_classes=row.classes,
        layer_scale=float(row.layer_scale) if row.layer_scale else None,
    )
    load_weights(model, checkpoint if checkpoint is not None else f'{SCHEME}{row.id}')
    model.to(device).eval()
    norms = [IMAGENET] if row.family.mean else [IMAGENET, HALF]
    hits = torch.zeros(len(norms), 2)
    images = 0
    try:
        for counts, seen in _count(model, loader, norms, device):
            hits += counts
            images += seen
    except _PhotoError as error:
        # One of a worker has that process's traceback before its words.
        raise ValueError(str(error).strip().rpartition('_PhotoError: ')[2]) from None
    return [
        Measurement(
            row=row.id,
            normalisation=norm,
            top1=100 * hits[i, 0].item() / images,
            top5=100 * hits[i, 1].item() / images,
            images=images,
            published=row.metrics['top1'],
            all_classes=len(loader.dataset.classes) == row.classes,
        )
        for i, norm in enumerate(norms)
    ]


class _PhotoError(ValueError):
    """A photo cannot be read."""


def _read_photo(path: str) -> object:
    from torchvision.datasets.folder import default_loader

    try:
        return default_loader(path)
    except (OSError, SyntaxError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise _PhotoError(
            f'{path} cannot be read as an image ({reason}); fetch it again.'
        ) from None


def _check_device(device: str | torch.device) -> None:
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
        raise ValueError(
            f'device={str(device)!r} cannot be used here ({reason}); choose cpu, or cuda where '
            'there is a GPU.'
        ) from None


@torch.inference_mode()
def _count(
    model: nn.Module, loader: DataLoader, norms: list[Normalisation], device: str | torch.device
) -> Iterator[tuple[Tensor, int]]:
    """Hits at 1 and at 5 for each normalisation, and the number of images, batch by batch."""
    for images_BCHW, labels_B in loader:
        images_BCHW, labels_B = images_BCHW.to(device), labels_B.to(device)
        counts = torch.zeros(len(norms), 2)
        for i, (mean, std) in enumerate(norms):
            mean_C11 = images_BCHW.new_tensor(mean).view(-1, 1, 1)
            std_C11 = images_BCHW.new_tensor(std).view(-1, 1, 1)
            best_B5 = model((images_BCHW - mean_C11) / std_C11).topk(5).indices
            right_B5 = best_B5 == labels_B[:, None]
            counts[i] = torch.stack([right_B5[:, 0].sum(), right_B5.any(1).sum()]).cpu()
        yield counts, len(labels_B)


def _loader(
    row: Row, data: Path, classes: str | PathLike | None, batch_size: int, workers: int
) -> DataLoader:
    if importlib.util.find_spec('torchvision') is None:
        raise CheckpointError('verify needs the torchvision package: pip install torchvision.')
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    size = int(row.size)
    transform = transforms.Compose(
        [
            transforms.Resize(
                int(size / float(row.family.crop_pct)),
                interpolation=transforms.InterpolationMode.BICUBIC,
            ),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
        ]
    )
    try:
        dataset = ImageFolder(str(data), transform, loader=_read_photo)
    except OSError as error:
        raise ValueError(f'data={str(data)!r}: {error}') from None
    ids = class_ids(dataset.classes, row.classes, classes)
    dataset.target_transform = [ids[name] for name in dataset.classes].__getitem__
    return DataLoader(dataset, batch_size, num_workers=workers)
