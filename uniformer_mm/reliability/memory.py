# SPDX-License-Identifier: Apache-2.0
"""What helps a training run that does not fit into the GPU's memory, in numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def advice_for(runner: Any) -> str:
    """One paragraph for a run that ran out of GPU memory.

    The numbers are estimates: what parameters, gradients and optimizer state hold is counted, the
    rest of the peak is taken for activations, which grow with the batch.

    Args:
        runner: Of the run that failed.
    """
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    loader = runner.train_loop.dataloader
    return describe(runner.model, peak, loader.batch_size or 0)


def describe(model: nn.Module, peak: int, batch_size: int) -> str:
    """The paragraph for a model, the peak of allocated bytes and the samples per GPU."""
    fixed = _fixed_bytes(model)
    activations = max(peak - fixed, 0)
    gib = 1 << 30
    text = [
        f'The GPU ran out of memory: {peak / gib:.1f} GiB at most, about {fixed / gib:.1f} GiB of '
        f'it parameters, gradients and optimizer state, about {activations / gib:.1f} GiB '
        'activations. What helps, cheapest first:'
    ]
    backbone = next((part for part in model.modules() if hasattr(part, 'cp_blocks')), None)
    if backbone is not None and getattr(backbone, 'attention', None) == 'global':
        text.append(
            "model.backbone.attention='hybrid' with window_size=14, or 'window': scores of stage 3 "
            'take memory with the square of the tokens (in proportion for windows), at some '
            'accuracy;'
        )
    if backbone is not None and not all(_is_checkpointed(backbone)):
        text.append(
            'model.backbone.with_cp=True computes each block twice (about a third more time) and '
            "keeps its input alone, often less than half of the backbone's activations;"
        )
    if batch_size > 1:
        half = activations * (batch_size // 2) / batch_size
        text.append(
            f'train_dataloader.batch_size={batch_size // 2} for {batch_size} saves about '
            f'{(activations - half) / gib:.1f} GiB, and uniformer-mm config NAME --gpus N '
            'accumulates gradients so that the published batch and its learning rate stay;'
        )
    text.append('and a smaller image or crop, or more GPUs with FSDP (docs/scale.md).')
    return ' '.join(text)


def _fixed_bytes(model: nn.Module) -> int:
    """Parameters, and per trained one a gradient and AdamW's two moments in float32."""
    total = 0
    for parameter in model.parameters():
        size = parameter.element_size()
        total += parameter.numel() * (size + (size + 8 if parameter.requires_grad else 0))
    return total


def _is_checkpointed(backbone: nn.Module) -> list[bool]:
    depths = backbone.arch.depths
    return [kept == depth for kept, depth in zip(backbone.cp_blocks, depths, strict=True)]
