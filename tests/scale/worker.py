# SPDX-License-Identifier: Apache-2.0
"""Four updates of the classification quickstart as one process, or one of several, would make them.

Run by ``test_two_processes.py``: ``worker.py DATA MODE WORK BATCH [MODE WORK BATCH ...]`` with MODE
one of ``one``, ``ddp``, ``fsdp`` and ``resumed`` (FSDP, stopped half-way). The first run leaves its
first weights in DATA, where all others begin.

Everything that would differ between processes by nature is off: BatchNorm keeps its running
statistics, the pipeline draws nothing, and AdamW's eps is large enough that gradients which are
zero but for rounding do not become steps of full length.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from mmengine import Config
from mmengine.runner import FlexibleRunner, Runner
from torch.distributed.fsdp import FullyShardedDataParallel

ROOT = Path(__file__).resolve().parents[2]
UPDATES = 4
SHARDED = ('fsdp', 'resumed')


def read_config(mode: str, data: str, work: str, batch: int, updates: int) -> Config:
    os.environ['UNIFORMER_DATA'] = data
    cfg = Config.fromfile(ROOT / 'configs/cls/quickstart.py')
    sharded = Config.fromfile(ROOT / 'configs/_base_/fsdp.py')
    cfg.work_dir = work
    cfg.experiment_name = f'{work}_{updates}'.replace('/', '_')
    dims = (8, 16, 32, 32)
    cfg.model.backbone.update(
        arch=dict(depths=(1, 1, 4, 1), dims=dims, head_dim=16), norm_eval=True, with_cp=(0, 0, 2, 0)
    )
    cfg.model.head.in_channels = dims[-1]
    cfg.train_dataloader.update(batch_size=batch, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.pipeline = cfg.test_pipeline
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='uniformer_mm.FusedAdamW', lr=1e-3, eps=1e-4, weight_decay=5.0),
        paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
        # Below the norm of these gradients, so that every update is clipped.
        clip_grad=dict(max_norm=0.5),
    )
    cfg.param_scheduler = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=updates, val_interval=updates + 1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=updates)
    cfg.default_hooks.logger.interval = updates
    cfg.log_processor = dict(by_epoch=False)
    cfg.log_level = 'ERROR'
    cfg.visualizer = None
    cfg.custom_hooks = None
    for key in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{key}'] = cfg[f'test_{key}'] = None
    if mode != 'one':
        cfg.launcher = 'pytorch'
        cfg.env_cfg.dist_cfg.backend = 'gloo'
    if mode in SHARDED:
        cfg.merge_from_dict(sharded.to_dict())
        cfg.strategy.model_wrapper.device_id = 'cpu'
        cfg.optim_wrapper.type = 'uniformer_mm.ShardedOptimWrapper'
    return cfg


def train(cfg: Config, mode: str, first_weights: Path) -> Runner | FlexibleRunner:
    if first_weights.exists() and not cfg.resume:
        cfg.load_from = str(first_weights)
    runner = (FlexibleRunner if mode in SHARDED else Runner).from_cfg(cfg)
    if not first_weights.exists():
        runner.model.init_weights()
        torch.save({'state_dict': runner.model.state_dict()}, first_weights)
    runner.train()
    return runner


def run(mode: str, data: str, work: str, batch: int) -> None:
    first_weights = Path(data, 'first.pth')
    cfg = read_config(mode, data, work, batch, UPDATES)
    if mode == 'resumed':
        train(read_config(mode, data, work, batch, UPDATES // 2), mode, first_weights)
        cfg.resume = True
    runner = train(cfg, mode, first_weights)
    norm = runner.message_hub.get_scalar('train/grad_norm').current()
    units = [
        name for name, m in runner.model.named_modules() if isinstance(m, FullyShardedDataParallel)
    ]
    rank = int(os.environ.get('RANK', 0))
    torch.save({'norm': norm, 'units': units}, f'{work}/rank{rank}.pth')


if __name__ == '__main__':
    torch.set_num_threads(1)
    data, *runs = sys.argv[1:]
    for mode, work, batch in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
        run(mode, data, work, int(batch))
