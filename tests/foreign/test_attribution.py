# SPDX-License-Identifier: Apache-2.0
"""captum and pytorch-grad-cam: what they draw lies where the reference's lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .networks import CASES, Case, assert_same, classifier, reference_of, sample

pytestmark = pytest.mark.slow
# Neither square nor as wide as the channels: a map of the wrong axes has another shape.
SIDES = (96, 160)
TARGET = 3


def networks(name: str) -> tuple[Case, nn.Module, nn.Module, Tensor]:
    case = CASES[name]
    model = classifier(case).double().eval()
    return case, model, reference_of(case, model), sample(case, sides=SIDES)


def layer(case: Case, model: nn.Module, name: str) -> nn.Module:
    """An hourglass block returns three tensors, so there the last norm stands for it."""
    return model.norm if case.hourglass and name == 'blocks4.0' else model.get_submodule(name)


def grad_cam(case: Case, model: nn.Module, x: Tensor, name: str) -> Tensor:
    """Selvaraju et al. 2017 by hand: channels weighted by the mean of their gradients."""
    kept = []
    handle = layer(case, model, name).register_forward_hook(lambda _, __, y: kept.append(y))
    logits = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, TARGET].sum(), kept)
    weights = gradient.flatten(2).mean(2)
    return torch.einsum('bc,bc...->b...', weights, kept[0]).detach()


@pytest.mark.parametrize('place', ['blocks4.0', 'blocks2.0', 'patch_embed3'])
@pytest.mark.parametrize('name', CASES)
def test_layer_grad_cam_of_captum(name: str, place: str) -> None:
    attr = pytest.importorskip('captum.attr', reason='captum is not installed')
    case, model, reference, x = networks(name)
    found = attr.LayerGradCam(model, layer(case, model, place)).attribute(x, target=TARGET)
    want = grad_cam(case, reference, x, place)
    stride = {'blocks4.0': 32, 'blocks2.0': 8, 'patch_embed3': 16}[place]
    assert found.shape[-2:] == (SIDES[0] // stride, SIDES[1] // stride)
    assert_same(found[:, 0], want, 1e-8)


@pytest.mark.parametrize('name', CASES)
def test_integrated_gradients_of_captum(name: str) -> None:
    """They add up to the difference of the logits (completeness), and are the reference's."""
    attr = pytest.importorskip('captum.attr', reason='captum is not installed')
    case, model, reference, _ = networks(name)
    x = sample(case, batch=1, frames=2)
    ours, theirs = (
        attr.IntegratedGradients(net).attribute(x, target=TARGET, n_steps=24, internal_batch_size=8)
        for net in (model, reference)
    )
    assert_same(ours, theirs, 1e-8)
    if not case.hourglass:
        # Their choice of tokens jumps on the way.
        with torch.no_grad():
            change = (model(x) - model(torch.zeros_like(x)))[0, TARGET]
        assert ours.sum() == pytest.approx(change.item(), rel=0.1)


@pytest.mark.parametrize('name', CASES)
def test_layers_of_captum(name: str) -> None:
    attr = pytest.importorskip('captum.attr', reason='captum is not installed')
    case, model, reference, x = networks(name)
    for place in ('blocks1.0', 'blocks3.0.mlp', 'patch_embed2'):
        for method in (attr.LayerActivation, attr.LayerGradientXActivation):
            arguments = {} if method is attr.LayerActivation else {'target': TARGET}
            ours, theirs = (
                method(net, net.get_submodule(place)).attribute(x, **arguments)
                for net in (model, reference)
            )
            if 'window_size' in case.options and place == 'blocks3.0.mlp':
                theirs = theirs.flatten(1, -2)
            assert_same(ours, theirs, 1e-8)


def scaled(cam: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """As pytorch-grad-cam shows a map: from 0 to 1, then resized to the image."""
    cam = cam - cam.flatten(1).amin(1).view(-1, *(1,) * (cam.ndim - 1))
    cam = cam / (1e-7 + cam.flatten(1).amax(1).view(-1, *(1,) * (cam.ndim - 1)))
    return F.interpolate(cam[:, None], size=size, mode='bilinear')[:, 0].numpy()


@pytest.mark.parametrize('place', ['blocks4.0', 'blocks3.1', 'blocks1.0'])
@pytest.mark.parametrize('name', [name for name in CASES if CASES[name].ndim == 2])
def test_grad_cam_of_pytorch_grad_cam(name: str, place: str) -> None:
    cams = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed')
    targets = pytest.importorskip('pytorch_grad_cam.utils.model_targets')
    case, model, reference, x = networks(name)
    if case.hourglass and place == 'blocks3.1':
        place = 'blocks2.0'
    chosen = [targets.ClassifierOutputTarget(TARGET)] * len(x)
    with cams.GradCAM(model=model, target_layers=[layer(case, model, place)]) as cam:
        found = cam(input_tensor=x, targets=chosen)
    want = scaled(grad_cam(case, reference, x, place).clamp(min=0), SIDES)
    assert found.shape == (len(x), *SIDES)
    # They resize with OpenCV.
    assert np.abs(found - want).mean() < 0.02
    assert np.corrcoef(found.ravel(), want.ravel())[0, 1] > 0.98


@pytest.mark.parametrize('method', ['GradCAM', 'EigenCAM', 'GradCAMPlusPlus', 'LayerCAM'])
@pytest.mark.parametrize('name', CASES)
def test_maps_of_pytorch_grad_cam_are_the_reference_s(name: str, method: str) -> None:
    cams = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed')
    targets = pytest.importorskip('pytorch_grad_cam.utils.model_targets')
    case, model, reference, x = networks(name)
    chosen = [targets.ClassifierOutputTarget(TARGET)] * len(x)
    found = []
    for net in (model, reference):
        with getattr(cams, method)(model=net, target_layers=[layer(case, net, 'blocks4.0')]) as cam:
            found.append(cam(input_tensor=x, targets=chosen))
    ours, theirs = found
    assert ours.shape == theirs.shape
    assert ours.shape[-2:] == SIDES
    assert theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
