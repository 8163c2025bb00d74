# SPDX-License-Identifier: Apache-2.0
"""The compiled operators of mmcv that our configs call, against torchvision's and plain loops."""

from __future__ import annotations

import pytest
import torch

ops = pytest.importorskip('mmcv.ops', reason='mmcv has no compiled operators', exc_type=ImportError)
torchvision_ops = pytest.importorskip('torchvision.ops')


def boxes(count: int) -> torch.Tensor:
    """Random boxes ``(count, 4)`` as corners, on a map of 60 x 80."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 40.0])
    size = 4 + torch.rand(count, 2, generator=generator) * 16
    return torch.cat([corner, corner + size], dim=1)


def test_nms() -> None:
    candidates = boxes(300)
    scores = torch.rand(300, generator=torch.Generator().manual_seed(1))
    kept, index = ops.nms(candidates, scores, iou_threshold=0.5)
    expected = torchvision_ops.nms(candidates, scores, 0.5)
    assert 0 < len(expected) < 300
    assert torch.equal(index, expected)
    assert torch.equal(kept[:, :4], candidates[expected])


def test_soft_nms_lowers_scores_by_the_overlap() -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    kept, index = ops.soft_nms(candidates, scores, iou_threshold=0.3, method='linear')
    # The second box covers half of the first: 0.8 * (1 - 0.5).
    assert index.tolist() == [0, 2, 1]
    assert torch.allclose(kept[:, 4], torch.tensor([0.9, 0.7, 0.4]))


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_and_its_gradient(sampling_ratio: int) -> None:
    x_BCHW = torch.randn(2, 3, 60, 80, generator=torch.Generator().manual_seed(2))
    rois = torch.cat([torch.arange(20).remainder(2)[:, None], boxes(20)], dim=1)
    inputs = [x_BCHW.clone().requires_grad_() for _ in range(2)]
    ours = ops.roi_align(inputs[0], rois, (7, 7), 0.5, sampling_ratio, 'avg', True)
    theirs = torchvision_ops.roi_align(inputs[1], rois, (7, 7), 0.5, sampling_ratio, True)
    assert torch.allclose(ours, theirs, atol=1e-6)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3))
    for output in (ours, theirs):
        (output * weight).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)


def test_modulated_deformable_convolution() -> None:
    generator = torch.Generator().manual_seed(4)
    x_BCHW = torch.randn(1, 4, 9, 11, generator=generator)
    offset = torch.randn(1, 18, 9, 11, generator=generator)
    mask = torch.rand(1, 9, 9, 11, generator=generator)
    weight = torch.randn(5, 4, 3, 3, generator=generator)
    ours = ops.modulated_deform_conv2d(x_BCHW, offset, mask, weight, None, 1, 1, 1, 1, 1)
    theirs = torchvision_ops.deform_conv2d(x_BCHW, offset, weight, padding=1, mask=mask)
    assert torch.allclose(ours, theirs, atol=1e-4)
