#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""What a GPU would have to read, write and compute for a network, without one.

    python tools/benchmark/roofline.py --task image dense video --mode inference training
    python tools/benchmark/roofline.py --task video --shape 8x32x224x224 --arch base

Runs the fused blocks of GPUs on tensors without memory, with kernels that do nothing, and adds up
the bytes of every operator's and kernel's tensors, once per call, and the operations of matrix
multiplications and of depthwise convolutions. Beside them stands the time that each takes at a
GPU's roofline: the sum of bytes over the copy rate is what bounds these networks. Under bfloat16
autocast.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.measure import step
from tools.benchmark.networks import shape_of
from tools.benchmark.overhead import as_on_a_gpu
from tools.benchmark.rows import describe
from tools.benchmark.traffic import moved_bytes
from tools.benchmark.variants import build, random_state, why_not
from tools.benchmark.workloads import ATTENTIONS, MODES, TASKS, Workload, usual_attention
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.fast import attention as fused_attention
from uniformer_mm.files import prepare, write_text
from uniformer_mm.models import ARCHS

VARIANTS = ('official', 'fast')
# H100 SXM: matrix products and copies as measured for the project's baseline, multiply-adds of
# its ordinary cores as its data sheet has them.
MATMUL_TFLOPS, COPY_TBYTES, FMA_TFLOPS = 784.0, 3.0, 67.0
GIB, GIGA = 2**30, 1e9


@dataclass(frozen=True)
class Count:
    """What one network needs for one work.

    Attributes:
        work: Task, arch, shape, mode.
        variant: Which network.
        gib: Read and written.
        product_gflop: Of matrix products, attention's included.
        depthwise_gflop: Of depthwise convolutions, which tensor cores do not serve.
    """

    work: str
    variant: str
    gib: float
    product_gflop: float
    depthwise_gflop: float

    def milliseconds(self, copy: float, matmul: float, fma: float) -> tuple[float, float, float]:
        """Of bytes, products and depthwise convolutions at rooflines in TB/s and TFLOP/s."""
        return (
            self.gib * GIB / copy / GIGA,
            self.product_gflop / matmul,
            self.depthwise_gflop / fma,
        )


def depthwise_gflop(network: nn.Module, run: Callable[[], object]) -> float:
    """Operations of the forward pass of a reference network's grouped convolutions."""
    total = 0

    def count(layer: nn.Module, inputs: object, y: torch.Tensor) -> None:
        nonlocal total
        total += 2 * y.numel() * layer.weight[0].numel()

    kinds = (nn.Conv2d, nn.Conv3d)
    grouped = [m for m in network.modules() if isinstance(m, kinds) and m.groups > 1]
    hooks = [layer.register_forward_hook(count) for layer in grouped]
    run()
    for hook in hooks:
        hook.remove()
    return total / GIGA


@contextmanager
def blocks_of_a_gpu() -> Iterator[None]:
    """As on a GPU, for tensors without memory; a launch does nothing."""
    from uniformer_mm.ops.triton.launch import Kernel

    with ExitStack() as stack:
        stack.enter_context(as_on_a_gpu())
        stack.enter_context(patch.object(Kernel, '__call__', lambda *arguments: None))
        yield


def _fake_rows(find: Callable[..., tuple]) -> Callable[..., tuple]:
    """Rows of windows, whose number is found with memory, in tensors without."""

    def rows(shape: torch.Size, window_size: int, device: torch.device) -> tuple:
        with unset_fake_temporarily():
            found = find(shape, window_size, torch.device('cpu'))
        return tuple(
            None if real is None else torch.empty(real.shape, dtype=real.dtype, device=device)
            for real in found
        )

    return rows


def moved_gib(variant: str, work: Workload) -> float:
    """What one step reads and writes."""
    network = build(variant, work, random_state(work))
    network.cpu_dtypes = {torch.bfloat16, torch.float16}
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(patch.object(OfficialUniFormer, 'autocast_as_on_gpu', True))
        if variant != 'official':
            stack.enter_context(blocks_of_a_gpu())
            rows = _fake_rows(fused_attention._window_rows)
            stack.enter_context(patch.object(fused_attention, '_window_rows', rows))
        run = step(network, work.sample('cpu'), work)
        run()
        return moved_bytes(run) / GIB


def computed_gflop(work: Workload) -> tuple[float, float]:
    """Of the products, and of the depthwise convolutions, of a step of the reference."""
    network = build('official', work, random_state(work))
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = work.sample('cpu')
        with FlopCounterMode(display=False) as counter:
            network.eval()(x)
        depthwise = depthwise_gflop(network, lambda: network(x))
    times = 3 if work.mode == 'training' else 1
    return times * (counter.get_total_flops() / GIGA - depthwise), times * depthwise


def count(work: Workload, variants: list[str]) -> list[Count]:
    """The networks for one work."""
    computed = computed_gflop(work)
    return [Count(str(work), variant, moved_gib(variant, work), *computed) for variant in variants]


def workloads(args: argparse.Namespace) -> list[Workload]:
    """Everything the command line asks for, in order.

    Raises:
        ValueError: There is no such network, or the shape is not one of the task.
    """
    found = []
    for arch in args.arch:
        for name in args.task:
            task = TASKS[name]
            shape = shape_of(args.shape, task.rank) if args.shape else task.cuda_shape
            for attention in args.attention or [usual_attention(name, arch)]:
                for mode in args.mode:
                    found.append(Workload(arch, name, attention, shape, 'bfloat16', mode))
    for work in found:
        reason = why_not('official', work, 'cpu')
        if reason:
            raise ValueError(f'{work}: {reason}; choose another --task, --arch or --attention.')
    return found


def main(arguments: list[str] | None = None) -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--arch', nargs='+', choices=ARCHS, default=['small'], metavar='ARCH', help=', '.join(ARCHS)
    )
    parser.add_argument('--task', nargs='+', choices=TASKS, default=['image', 'dense', 'video'])
    parser.add_argument('--attention', nargs='+', choices=ATTENTIONS, help="default: the task's")
    parser.add_argument('--shape', help="default: the task's for a GPU")
    parser.add_argument('--mode', nargs='+', choices=MODES, default=['inference', 'training'])
    parser.add_argument('--variant', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--copy', type=float, default=COPY_TBYTES, help='TB/s, both directions')
    parser.add_argument('--matmul', type=float, default=MATMUL_TFLOPS, help='TFLOP/s, bfloat16')
    parser.add_argument('--fma', type=float, default=FMA_TFLOPS, help='TFLOP/s, float32')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args(arguments)
    if 'fast' in args.variant and importlib.util.find_spec('triton') is None:
        parser.error('our kernels need the package triton; install it, or use --variant official')
    try:
        asked = workloads(args)
        if args.json:
            prepare(args.json, overwrite=True)
    except ValueError as error:
        parser.error(str(error))
    table = Table('work', 'network', 'GiB', 'GFLOP', 'depthwise')
    for name in ('bytes, ms', 'products, ms', 'depthwise, ms'):
        table.add_column(name, justify='right')
    counts = [row for work in asked for row in count(work, args.variant)]
    for row in counts:
        times = row.milliseconds(args.copy, args.matmul, args.fma)
        table.add_row(
            row.work,
            row.variant,
            f'{row.gib:.1f}',
            f'{row.product_gflop:.0f}',
            f'{row.depthwise_gflop:.0f}',
            *(f'{ms:.1f}' for ms in times),
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 170)
    console.print(table)
    console.print(f'at {args.copy} TB/s, {args.matmul:.0f} and {args.fma:.0f} TFLOP/s')
    console.print('counted on ' + describe('cpu', torch.get_num_threads()))
    if args.json:
        write_text(args.json, json.dumps([asdict(row) for row in counts], indent=1) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
