# SPDX-License-Identifier: Apache-2.0
"""One SGD step of each network, sharded by block over two processes; run by ``test_fsdp.py``.

``sharded_worker.py FILE``: the first process writes ``{kind: {case: state dict}}`` to FILE.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from tests.foreign.networks import CASES, dense, sample

LR = 0.1


def blocks(model: nn.Module) -> list[nn.Module]:
    return [block for stage in range(1, 5) for block in getattr(model, f'blocks{stage}')]


def loss_of(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A mean over the samples, so that the mean over processes is the whole batch's."""
    return sum((y.sin() * y).flatten(1).mean(1).mean() for y in outputs)


def step(model: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loss_of(model(x)).backward()
    optimizer.step()


def shard(model: nn.Module, kind: str) -> nn.Module:
    if kind == 'fully_shard':
        for block in blocks(model):
            fully_shard(block)
        return fully_shard(model)
    policy = ModuleWrapPolicy({type(block) for block in blocks(model)})
    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=policy,
        use_orig_params=kind == 'fsdp_original',
        device_id=torch.device('cpu'),
        sharding_strategy=ShardingStrategy.FULL_SHARD,
    )


KINDS = ('fsdp_flat', 'fsdp_original', 'fully_shard')


def main(file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    rank = int(os.environ['RANK'])
    found = {}
    for kind in KINDS:
        for name, case in CASES.items():
            # Running statistics: each process would have its own.
            model = shard(dense(case).eval(), kind)
            step(model, sample(case, batch=4, dtype=torch.float32)[rank::2])
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state = get_model_state_dict(model, options=options)
            found.setdefault(kind, {})[name] = state
    if rank == 0:
        torch.save(found, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main(sys.argv[1])
