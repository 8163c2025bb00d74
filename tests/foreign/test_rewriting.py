# SPDX-License-Identifier: Apache-2.0
"""Helpers that walk over child modules and rewrite them leave the result as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from .networks import CASES, EVERY, assert_same, classifier, dense, loss_of, reference_of, sample


def fuse_conv_bn_of_mmcv(model: nn.Module) -> nn.Module:
    cnn = pytest.importorskip('mmcv.cnn', reason='mmcv is not installed')
    return cnn.fuse_conv_bn(model)


def fuse_conv_bn_of_fx(model: nn.Module) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    return fuse(model)


def round_trip_of_torch_and_mmengine(model: nn.Module) -> nn.Module:
    from mmengine.model import revert_sync_batchnorm

    return revert_sync_batchnorm(nn.SyncBatchNorm.convert_sync_batchnorm(model))


def round_trip_of_mmengine(model: nn.Module) -> nn.Module:
    from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm

    return revert_sync_batchnorm(convert_sync_batchnorm(model, implementation='torch'))


def channels_last(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    return model


def frozen_norms(model: nn.Module) -> nn.Module:
    """As torchvision's detectors: BatchNorms become constants."""
    from torchvision.ops import FrozenBatchNorm2d

    for path, norm in list(model.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(norm.num_features, norm.eps).to(norm.weight)
            frozen.load_state_dict(norm.state_dict())
            parent, _, name = path.rpartition('.')
            setattr(model.get_submodule(parent), name, frozen)
    return model


def parametrised(model: nn.Module) -> nn.Module:
    """Weight norm on each linear layer: an equal weight, made in each pass."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.utils.parametrizations.weight_norm(module)
    return model


def averaged(model: nn.Module) -> nn.Module:
    average = AveragedModel(model)
    average.update_parameters(model)
    return average.eval()


REWRITES = [
    fuse_conv_bn_of_mmcv,
    round_trip_of_torch_and_mmengine,
    *(
        pytest.param(call, marks=pytest.mark.slow)
        for call in (
            fuse_conv_bn_of_fx,
            round_trip_of_mmengine,
            channels_last,
            frozen_norms,
            parametrised,
            averaged,
        )
    ),
]


@pytest.mark.parametrize('rewrite', REWRITES, ids=lambda call: call.__name__)
@pytest.mark.parametrize('name', EVERY)
def test_rewritten_networks_are_equal(name: str, rewrite: Callable) -> None:
    """Dense networks and classifiers in evaluation; float32 inference, and gradients."""
    case = CASES[name]
    x = sample(case, dtype=torch.float32)
    for model in (dense(case).eval(), classifier(case).eval()):
        reference = reference_of(case, model)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            changed = rewrite(copy.deepcopy(model)).eval()
        with torch.no_grad():
            assert_same(changed(x), reference(x), 2e-4)
        ours, theirs = (
            torch.autograd.grad(loss_of(net(z)), z)[0]
            for net in (changed, reference)
            for z in [x.clone().requires_grad_()]
        )
        assert_same(ours, theirs, 2e-3)


@pytest.mark.parametrize('name', EVERY)
def test_a_fused_convolution_takes_its_own_norm(name: str) -> None:
    """mmcv goes by the order of children: only convolutional embeddings have such pairs."""
    case = CASES[name]
    model = dense(case).eval()
    pairs = 0
    for stage in range(1, 5):
        kinds = [type(m) for m in model.get_submodule(f'patch_embed{stage}').modules()]
        pairs += sum(kind in (nn.BatchNorm2d, nn.BatchNorm3d) for kind in kinds)
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    fused = fuse_conv_bn_of_mmcv(copy.deepcopy(model))
    left = [m for m in fused.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    assert len(norms) - len(left) in (0, pairs)
    if case.ndim == 2:
        assert len(norms) - len(left) == pairs


@pytest.mark.parametrize('name', EVERY)
def test_statistics_measured_again(name: str) -> None:
    """``update_bn`` of PyTorch, on the classifier and the reference."""
    case = CASES[name]
    model = classifier(case).double()
    reference = reference_of(case, model)
    loader = [sample(case) + shift for shift in (0.0, 0.5)]
    for net in (model, reference):
        update_bn(loader, net)
    ours, theirs = model.state_dict(), reference.state_dict()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('name', EVERY)
def test_layer_depths_of_mmpretrain_follow_the_order_of_the_blocks(name: str) -> None:
    """``get_layer_depth`` of every parameter: it rises as the map passes, block by block."""
    case = CASES[name]
    model = dense(case)
    order = []
    for child in ('patch_embed1', *(f'blocks1.{i}' for i in range(case.arch['depths'][0]))):
        order.append(child)
    for stage in (2, 3, 4):
        order += [f'blocks{stage}.{i}' for i in range(case.arch['depths'][stage - 1])]
    depths = {}
    for key, _ in model.named_parameters():
        depth, total = model.get_layer_depth(f'backbone.{key}', 'backbone.')
        assert total == len(order) + 1
        owner = next((child for child in order if key.startswith(f'{child}.')), None)
        if owner is not None:
            depths.setdefault(owner, set()).add(depth)
    assert [depths[child] for child in order] == [{index} for index in range(len(order))]
