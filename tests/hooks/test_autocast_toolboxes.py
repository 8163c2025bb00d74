# SPDX-License-Identifier: Apache-2.0
"""The quickstarts tested in half precision from end to end, evaluators included, on the CPU.

A processor without bfloat16 instructions computes the backbone in float32 and the heads not.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from uniformer_mm.synth import make_data

from ..conftest import ROOT
from .test_autocast import DTYPES, float16_on_a_cpu


@dataclass(frozen=True)
class Case:
    """A quickstart.

    Attributes:
        toolbox: Its scope.
        config: Its file.
        head: A module that must compute in half precision.
        read: The scores of a data sample.
        float32_modules: What docs/options.md says that tests need.
    """

    toolbox: str
    config: str
    head: str
    read: Callable[[BaseDataElement], torch.Tensor]
    float32_modules: tuple[str, ...] = ()


CASES = {
    'det': Case(
        'mmdet',
        'det/quickstart.py',
        'roi_head.bbox_head.fc_cls',
        # Boxes of random weights are nearly equal, and so come in any order.
        lambda sample: sample.pred_instances.scores.max(),
        (
            'rpn_head.rpn_cls',
            'rpn_head.rpn_reg',
            'roi_head.bbox_roi_extractor',
            'roi_head.mask_roi_extractor',
        ),
    ),
    'seg': Case(
        'mmseg', 'seg/quickstart.py', 'decode_head.conv_seg', lambda sample: sample.seg_logits.data
    ),
    'pose': Case(
        'mmpose',
        'pose/quickstart.py',
        'head.deconv_layers',
        lambda sample: torch.tensor(sample.pred_instances.keypoint_scores),
        ('head.final_layer',),
    ),
    'kinetics': Case(
        'mmaction',
        'video/quickstart_kinetics.py',
        'cls_head.fc_cls',
        lambda sample: sample.pred_score,
    ),
    'ssv2': Case(
        'mmaction', 'video/quickstart_ssv2.py', 'cls_head.fc_cls', lambda sample: sample.pred_score
    ),
    'cls': Case('mmpretrain', 'cls/quickstart.py', 'head.fc', lambda sample: sample.pred_score),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('synthetic') / 'data'
    make_data(root, size='tiny')
    return root


class Watch(Hook):
    """Keeps the outputs and the dtypes that a module gives out."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.outputs, self.dtypes = [], set()

    def before_test(self, runner) -> None:
        def note(_module, _inputs, output: torch.Tensor) -> None:
            self.dtypes.add(output.dtype)

        runner.model.get_submodule(self.module).register_forward_hook(note)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.outputs += outputs


def evaluate(case: Case, data: Path, work: Path, hooks: list[dict]) -> tuple[dict, Watch]:
    """Metrics of random weights on four samples, and what was watched."""
    pytest.importorskip(case.toolbox, reason=f'{case.toolbox} is not installed')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(data))
        cfg = Config.fromfile(ROOT / 'configs' / case.config)
    cfg.test_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.indices = 4
    parts = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')
    for name in (*parts, 'val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[name] = None
    cfg.update(work_dir=str(work), custom_hooks=hooks, experiment_name=str(work).replace('/', '_'))
    cfg.test_cfg = dict(type='TestLoop')
    if case.toolbox == 'mmdet':
        # Emulated bfloat16 is slow.
        cfg.model.test_cfg.rcnn.max_per_img = 10
    cfg.log_level = 'ERROR'
    cfg.visualizer.vis_backends = []
    importlib.import_module(f'{case.toolbox}.utils').register_all_modules(False)
    watch = Watch(case.head)
    with DefaultScope.overwrite_default_scope(case.toolbox):
        torch.manual_seed(0)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(watch)
        return runner.test(), watch


def hook(dtype: str, float32_modules: tuple[str, ...]) -> dict:
    return dict(
        type='uniformer_mm.InferenceAutocastHook', dtype=dtype, float32_modules=float32_modules
    )


def tensors(value: object) -> Iterator[torch.Tensor]:
    """Every tensor of an output."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, BaseDataElement | dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


@pytest.mark.parametrize(
    ('task', 'dtype'),
    [
        # The one with the fewest layers between, and one whose head has a list of exceptions.
        ('cls', 'bfloat16'),
        ('pose', 'bfloat16'),
        *(
            pytest.param(task, 'bfloat16', marks=pytest.mark.slow)
            for task in CASES
            if task not in ('cls', 'pose')
        ),
        pytest.param('pose', 'float16', marks=float16_on_a_cpu),
    ],
)
def test_a_quickstart_is_tested_in_half_precision(
    task: str, dtype: str, data: Path, tmp_path: Path
) -> None:
    case = CASES[task]
    _, plain = evaluate(case, data, tmp_path / 'plain', [])
    metrics, half = evaluate(case, data, tmp_path / 'half', [hook(dtype, case.float32_modules)])
    assert metrics
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert (plain.dtypes, half.dtypes) == ({torch.float32}, {DTYPES[dtype]})
    assert len(half.outputs) == len(plain.outputs) == 4
    assert not {tensor.dtype for tensor in tensors(half.outputs)} & set(DTYPES.values())
    for ours, theirs in zip(half.outputs, plain.outputs, strict=True):
        got, expected = case.read(ours), case.read(theirs)
        # Eight bits of precision, over a few layers.
        assert (got - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize(
    ('task', 'error', 'message'),
    [
        pytest.param('det', RuntimeError, 'BFloat16', marks=pytest.mark.slow),
        ('pose', TypeError, 'BFloat16'),
    ],
)
def test_these_need_float32_modules(
    task: str, error: type, message: str, data: Path, tmp_path: Path
) -> None:
    """Why the list exists; once this passes, docs/options.md can lose a row."""
    with pytest.raises(error, match=message):
        evaluate(CASES[task], data, tmp_path, [hook('bfloat16', ())])
