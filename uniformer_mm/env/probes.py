# SPDX-License-Identifier: Apache-2.0
"""Short programs that prove by behaviour whether something works here.

Each runs in a process of its own (``python probes.py NAME``), so that a broken compiled library or
a failing import can neither stop the doctor nor hide what fails next. This file imports nothing of
our package: what is probed is the environment.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

TOOLBOXES = {
    'mmpretrain': 'mmpretrain',
    'mmdet': 'mmdet',
    'mmseg': 'mmsegmentation',
    'mmpose': 'mmpose',
    'mmaction': 'mmaction2',
}
"""Import name of each toolbox and the distribution that holds it."""


def import_toolbox(module: str) -> None:
    """Import what ``mim train`` and the toolbox's own tools import."""
    importlib.import_module(f'{module}.apis')
    importlib.import_module(f'{module}.models')


def torchvision_ops() -> None:
    """torchvision must be the release that was compiled for the installed torch."""
    import torch
    from torchvision.ops import nms

    boxes_N4 = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    kept = nms(boxes_N4, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist()
    _expect(kept == [1, 2], f'torchvision.ops.nms keeps {kept}, not [1, 2]')


def mmcv_ops() -> None:
    """mmcv must have its compiled operators, made for the installed torch."""
    import torch
    from mmcv.ops import nms, roi_align

    boxes_N4 = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    _, kept = nms(boxes_N4, torch.tensor([0.5, 0.9, 0.7]), 0.5)
    _expect(kept.tolist() == [1, 2], f'mmcv.ops.nms keeps {kept.tolist()}, not [1, 2]')
    image_1CHW = torch.ones(1, 1, 8, 8)
    pooled = roi_align(image_1CHW, torch.tensor([[0.0, 1, 1, 5, 5]]), (2, 2), 1.0, 2)
    _expect(bool((pooled == 1).all()), 'mmcv.ops.roi_align of a constant image is not constant')


def mmcv_cuda_ops() -> None:
    """Where torch sees a GPU, mmcv's operators must run on it."""
    import torch
    from mmcv.ops import nms

    boxes_N4 = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]], device='cuda')
    _, kept = nms(boxes_N4, torch.tensor([0.5, 0.9], device='cuda'), 0.5)
    _expect(kept.tolist() == [1], f'mmcv.ops.nms on the GPU keeps {kept.tolist()}, not [1]')


def mmengine_checkpoint() -> None:
    """mmengine must read back what its runner saves, and still refuse what it does not save."""
    import pickle

    import numpy as np
    import torch
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer
    from mmengine.runner.checkpoint import load_from_local

    history = HistoryBuffer([1.0, 3.0], [1, 1])
    saved = dict(
        message_hub=dict(log_scalars=dict(loss=history)),
        meta=dict(sigmas=np.ones(2, np.float32), score=np.float64(0.5), info=ConfigDict(a=1)),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'checkpoint.pth')
        torch.save(saved, file)
        loaded = load_from_local(str(file), 'cpu')
        mean = loaded['message_hub']['log_scalars']['loss'].mean()
        _expect(mean == 2.0, f'the mean of the history [1, 3] is read back as {mean}')
        torch.save(dict(meta=Path('anything')), file)
        torch_version = tuple(int(part) for part in torch.__version__.split('.')[:2])
        if torch_version >= (2, 6):
            try:
                load_from_local(str(file), 'cpu')
            except pickle.UnpicklingError:
                return
            raise RuntimeError('torch.load accepts any object: weights_only is off')


def mmengine_gloo() -> None:
    """mmengine must start a distributed run on the CPU and wrap a model in it."""
    import os

    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1')

    import torch
    from mmengine.model import BaseModel, MMDistributedDataParallel
    from mmengine.runner import Runner

    class Tiny(BaseModel):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.SyncBatchNorm(2)

        def forward(self, inputs, mode='tensor'):
            return self.norm(inputs)

    with tempfile.TemporaryDirectory() as folder:
        dist_cfg = dict(
            backend='gloo', init_method=Path(folder, 'store').as_uri(), rank=0, world_size=1
        )
        runner = Runner(
            model=Tiny(),
            work_dir=folder,
            launcher='pytorch',
            env_cfg=dict(dist_cfg=dist_cfg),
            log_level='ERROR',
        )
        _expect(isinstance(runner.model, MMDistributedDataParallel), 'the model is not wrapped')
        runner.model(torch.ones(2, 2, 4, 4)).sum().backward()
        torch.distributed.destroy_process_group()


def command_mim() -> None:
    """The command mim must start (it imports pkg_resources and pandas)."""
    importlib.import_module('mim.cli')


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise RuntimeError(otherwise)


PROBES: dict[str, Callable[[], None]] = {
    'torchvision-ops': torchvision_ops,
    'mmcv-ops': mmcv_ops,
    'mmcv-cuda-ops': mmcv_cuda_ops,
    'mmengine-checkpoint': mmengine_checkpoint,
    'mmengine-gloo': mmengine_gloo,
    'mim': command_mim,
    **{f'import-{module}': partial(import_toolbox, module) for module in TOOLBOXES},
}


if __name__ == '__main__':
    # Python puts this file's folder first on the path; nothing here is a top-level module.
    sys.path.pop(0)
    PROBES[sys.argv[1]]()
