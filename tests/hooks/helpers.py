# SPDX-License-Identifier: Apache-2.0
"""A small training under mmengine's runner."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from torch.utils.data import Dataset

from uniformer_mm.models import UniFormer2d

SMALL = dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), head_dim=8)


class Images(Dataset):
    """Four fixed images and their class."""

    def __init__(self) -> None:
        self.images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], index % 2


class Classifier(BaseModel):
    """A backbone and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = UniFormer2d(SMALL, out_indices=(3,), as_tuple=False)
        self.head = torch.nn.Linear(16, 2)

    def forward(self, images: torch.Tensor, labels: torch.Tensor, mode: str = 'loss') -> dict:
        scores = self.head(self.backbone(images).mean((2, 3)))
        return {'loss': torch.nn.functional.cross_entropy(scores, labels)}


def train(work: Path, hooks: list[dict]) -> Runner:
    """Two epochs of two batches in a folder, with custom hooks."""
    torch.manual_seed(0)
    runner = Runner(
        Classifier(),
        str(work),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=Images(),
            sampler=dict(type='DefaultSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=hooks,
        default_scope='mmengine',
        randomness=dict(seed=0),
        experiment_name=work.name,
    )
    runner.train()
    return runner


def check_alike(got: Runner, expected: Runner) -> None:
    """Both learned the same, and the checkpoint of the first fits the plain network."""
    ours, theirs = got.model.state_dict(), expected.model.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5)
    load_checkpoint(Classifier(), f'{got.work_dir}/epoch_2.pth', strict=True)
