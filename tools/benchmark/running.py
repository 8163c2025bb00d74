# SPDX-License-Identifier: Apache-2.0
"""One measured run of a recipe under mmengine's runner."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor

from tools.reference.backbones import reference_backbone, renamed
from uniformer_mm.models.arch import resolve_arch

from .timing import MIB

MODES = ('training', 'inference')
# Variants that are a hook of ours.
SPEED_HOOKS = {
    'ours-compiled': 'uniformer_mm.CompileHook',
    'ours-graphs': 'uniformer_mm.CudaGraphHook',
}
AUTOCAST_HOOK = 'uniformer_mm.InferenceAutocastHook'
SEED = 0


@dataclass(frozen=True)
class Recipe:
    """What is run for a task.

    Attributes:
        package: The toolbox.
        full: Config of the published recipe.
        quickstart: Config for two cores.
        float32_modules: What bfloat16 leaves in float32 (docs/options.md).
        synthetic: ``metainfo`` of the data sets on the synthetic world, if it needs any.
    """

    package: str
    full: str
    quickstart: str
    float32_modules: tuple[str, ...] = ()
    synthetic: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """One round.

    Attributes:
        rate: Samples per second.
        shares: Where the time went.
        memory_mib: Peak on a GPU.
        losses: Of each step, warm-up included.
    """

    rate: float
    shares: dict[str, float]
    memory_mib: float
    losses: list[float]


class EnoughStepsError(Exception):
    """How a run ends once everything is measured."""


class Clock(Hook):
    """Sets the weights before the first step, then measures ``iterations`` steps."""

    priority = 'LOWEST'

    def __init__(self, start: Callable[[Runner], None], warmup: int, iterations: int) -> None:
        self.start, self.warmup, self.iterations = start, warmup, iterations
        self.steps = self.samples = 0
        self.parts: Counter = Counter()
        self.began = self.mark = 0.0
        self.losses: list[Tensor] = []

    @property
    def running(self) -> bool:
        """Whether the warm-up is over."""
        return self.steps >= self.warmup

    def before_train(self, runner: Runner) -> None:
        """Start from the common weights and random numbers."""
        self.start(runner)
        watch_parts(runner, self)
        self._begin()

    before_test = before_train

    def _begin(self) -> None:
        synchronize()
        self.began = self.mark = time.perf_counter()

    def _after(self, batch: dict) -> None:
        self.steps += 1
        if self.steps == self.warmup:
            self._begin()
            return
        if self.steps > self.warmup:
            self.samples += len(batch['inputs'])
        done = self.steps == self.warmup + self.iterations
        if done:
            synchronize()
        self.mark = time.perf_counter()
        if done:
            raise EnoughStepsError

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """A batch has arrived."""
        if self.running:
            self.parts['data'] += time.perf_counter() - self.mark

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """A step is over."""
        self.losses.append(outputs['loss'].detach())
        self._after(data_batch)

    before_test_iter = before_train_iter

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """A batch is done."""
        self._after(data_batch)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def watch_parts(runner: Runner, clock: Clock) -> None:
    """Add up the CPU's time in the backbone's forward, the backward pass and the optimizer.

    On a GPU these are launches, not work, unless ``CUDA_LAUNCH_BLOCKING=1``; the rest of a step is
    heads, losses, preprocessing and what waits for the GPU.
    """

    def timed(name: str, call: Callable) -> Callable:
        def run(*args, **kwargs):
            began = time.perf_counter()
            result = call(*args, **kwargs)
            if clock.running:
                clock.parts[name] += time.perf_counter() - began
            return result

        return run

    backbone = runner.model.backbone
    if backbone._compiled_call_impl is not None:
        backbone._compiled_call_impl = timed('backbone forward', backbone._compiled_call_impl)
    else:
        backbone.forward = timed('backbone forward', backbone.forward)
    wrapper = getattr(runner, 'optim_wrapper', None)
    if hasattr(wrapper, 'backward'):
        wrapper.backward = timed('backward', wrapper.backward)
        wrapper.step = timed('optimizer', wrapper.step)


def common_weights(config: Config) -> dict[str, Tensor]:
    """Random weights of the recipe's model, under our names."""
    config.model.backbone.init_cfg = None
    init_default_scope(config.default_scope)
    torch.manual_seed(SEED)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.state_dict()


def change_backbone(config: Config, variant: str) -> None:
    """Put the variant's backbone, hook or optimizer into the config."""
    ours = config.model.backbone
    ours.init_cfg = None
    if variant == 'reference':
        config.model.backbone = ConfigDict(reference_backbone(ours))
    elif variant == 'mmaction2':
        arch = asdict(resolve_arch(ours.arch))
        config.model.backbone = ConfigDict(
            type='mmaction.UniFormer',
            depth=list(arch['depths']),
            embed_dim=list(arch['dims']),
            head_dim=arch['head_dim'],
            drop_path_rate=ours.get('drop_path_rate', 0.0),
            pretrained2d=False,
        )
    elif variant in SPEED_HOOKS:
        hooks = config.get('custom_hooks') or []
        config.custom_hooks = [*hooks, dict(type=SPEED_HOOKS[variant])]
    elif variant == 'ours-unfused-adamw':
        config.optim_wrapper.optimizer.fused = False
    elif variant == 'ours-autocast-stream':
        ours.residual_dtype = 'autocast'


def change_precision(config: Config, dtype: str, float32_modules: tuple[str, ...]) -> None:
    """Number format of the training step and of a test."""
    if dtype == 'recipe':
        return
    wrapper = config.optim_wrapper
    for key in ('type', 'dtype', 'loss_scale', 'float32_modules'):
        wrapper.pop(key, None)
    wrapper.type = 'OptimWrapper'
    hooks = [hook for hook in config.get('custom_hooks') or [] if hook['type'] != AUTOCAST_HOOK]
    if dtype == 'bfloat16':
        wrapper.type = 'uniformer_mm.BFloat16OptimWrapper'
        wrapper.float32_modules = float32_modules
        hooks.append(dict(type=AUTOCAST_HOOK, dtype=dtype, float32_modules=float32_modules))
    config.custom_hooks = hooks


def prepare(config: Config, mode: str, steps: int, work: Path) -> None:
    """Only steps: no validation, schedules, checkpoints or images."""
    config.work_dir, config.launcher, config.log_level = str(work), 'none', 'ERROR'
    config.default_hooks = dict(checkpoint=None, param_scheduler=None, logger=None)
    config.param_scheduler = None
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.randomness = dict(seed=SEED)
    config.experiment_name = work.name
    if config.get('visualizer'):
        config.visualizer.vis_backends = []
    if mode == 'training':
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps + 1)
        config.test_dataloader = config.test_cfg = config.test_evaluator = None
        config.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
        config.train_dataloader.pop('batch_sampler', None)
    else:
        config.train_dataloader = config.train_cfg = config.optim_wrapper = None
        config.test_cfg = dict(type='TestLoop')
        config.custom_hooks = [
            hook
            for hook in config.get('custom_hooks') or []
            if hook['type'] in (AUTOCAST_HOOK, *SPEED_HOOKS.values())
        ]


def run(
    config: Config,
    recipe: Recipe,
    variant: str,
    mode: str,
    args: argparse.Namespace,
    work: Path,
    state: dict[str, Tensor],
) -> Measured:
    """One round of a variant.

    Args:
        config: The recipe; is changed.
        recipe: Its row.
        variant: Whose backbone.
        mode: One of :data:`MODES`.
        args: ``dtype``, ``warmup``, ``iterations``, ``emulate``.
        work: An empty folder.
        state: Weights under our names (:func:`common_weights`), so that all runs start alike.
    """
    change_backbone(config, variant)
    change_precision(config, args.dtype, recipe.float32_modules)
    prepare(config, mode, args.warmup + args.iterations, work)
    init_default_scope(config.default_scope)

    def start(runner: Runner) -> None:
        runner.model.load_state_dict(renamed(state, runner.model), strict=True)
        if args.emulate:
            runner.model.backbone.cpu_dtypes = {torch.bfloat16, torch.float16}
        torch.manual_seed(SEED)

    clock = Clock(start, args.warmup, args.iterations)
    runner = Runner.from_cfg(config)
    runner.register_hook(clock)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(EnoughStepsError):
        runner.train() if mode == 'training' else runner.test()
    seconds = clock.mark - clock.began
    if not clock.samples:
        raise ValueError(
            f'the data set ended within the warm-up of {args.warmup} steps; lower --warmup or '
            'point UNIFORMER_DATA to more data.'
        )
    shares = {name: spent / seconds for name, spent in clock.parts.items()}
    peak = torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else 0.0
    losses = [float(loss) for loss in clock.losses]
    return Measured(clock.samples / seconds, shares, peak, losses)
