# SPDX-License-Identifier: Apache-2.0
"""Initialisation by ``init_cfg`` as mmengine's own base class does it, without importing it."""

from __future__ import annotations

import subprocess
import sys

import torch
from mmengine.model import BaseModule
from torch import nn

from uniformer_mm.models.init_cfg import InitCfgModule

INIT_CFG = [
    dict(type='Constant', layer='Linear', val=3.0, bias=2.0),
    dict(
        type='Constant',
        layer='Conv2d',
        val=5.0,
        override=dict(type='Constant', name='last', val=7.0),
    ),
]


def build(base: type, init_cfg: list[dict] | None) -> nn.Module:
    """A module on ``base`` with a part that has an ``init_weights`` of its own."""

    class Part(base):
        def __init__(self) -> None:
            super().__init__(init_cfg=dict(type='Constant', layer='Linear', val=11.0))
            self.fc = nn.Linear(2, 2)

    class Whole(base):
        def __init__(self) -> None:
            super().__init__(init_cfg=init_cfg)
            self.fc, self.conv = nn.Linear(2, 2), nn.Conv2d(1, 1, 1)
            self.last, self.part = nn.Conv2d(1, 1, 1), Part()

    torch.manual_seed(1)
    return Whole()


def test_values_are_those_of_mmengines_base_module():
    for init_cfg in (INIT_CFG, None):
        ours, reference = build(InitCfgModule, init_cfg), build(BaseModule, init_cfg)
        assert not ours.is_init
        for module in (ours, reference):
            module.init_weights()
        assert ours.is_init and ours.part.is_init
        expected = reference.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
        assert not any(hasattr(module, '_params_init_info') for module in ours.modules())
    assert expected['part.fc.weight'].eq(11).all() and not expected['fc.weight'].eq(3).any()


def test_a_second_call_leaves_trained_weights_alone():
    module = build(InitCfgModule, INIT_CFG)
    module.init_weights()
    with torch.no_grad():
        module.fc.weight.zero_()
    module.init_weights()
    assert module.fc.weight.eq(0).all()


def test_a_module_of_mmengine_initialises_ours_inside_it():
    class Detector(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = build(InitCfgModule, INIT_CFG)

    detector = Detector()
    detector.init_weights()
    assert detector.backbone.last.weight.eq(7).all() and detector.backbone.is_init


def test_init_cfg_is_a_copy():
    given = dict(type='Constant', layer='Linear', val=1.0)
    module = InitCfgModule(given)
    given['val'] = 2.0
    assert module.init_cfg['val'] == 1.0


def test_a_network_without_a_toolbox_imports_no_optimizers_and_no_fsdp():
    program = (
        'import sys, torch, uniformer_mm\n'
        "uniformer_mm.create_model('uniformer_tiny')\n"
        "print(sorted({'mmengine.model', 'mmengine.optim', 'torch.distributed.fsdp', 'mmcv'}"
        ' & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr
