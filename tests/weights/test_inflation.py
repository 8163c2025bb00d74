# SPDX-License-Identifier: Apache-2.0
"""2-D weights in the 3-D network, against loops and against the 2-D network itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uniformer_mm import UniFormer2d, UniFormer3d
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.weights import CheckpointError, inflate, load_weights
from uniformer_mm.weights.inflation import can_inflate

from .helpers import TINY, classifier_state, save


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, 64, 96, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('kernel_t', [1, 3, 5])
def test_against_a_loop(kernel_t):
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3))
    mean, centre = (
        inflate(torch.from_numpy(weight), (4, 2, kernel_t, 3, 3), mode).numpy()
        for mode in ('mean', 'centre')
    )
    default = inflate(torch.from_numpy(weight), (4, 2, kernel_t, 3, 3)).numpy()
    np.testing.assert_array_equal(default, mean)
    for o, i, t, y, x in np.ndindex(mean.shape):
        assert mean[o, i, t, y, x] == pytest.approx(weight[o, i, y, x] / kernel_t, rel=1e-15)
        middle = t == (kernel_t - 1) // 2
        assert centre[o, i, t, y, x] == (weight[o, i, y, x] if middle else 0)


@pytest.mark.parametrize('mode', ['mean', 'centre'])
def test_centre_or_mean_of_a_still_clip(mode):
    """Away from the ends of time both are the 2-D filter; at the ends only the centre is."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    image = torch.randn(1, 2, 9, 9, generator=generator, dtype=torch.float64)
    clip = image.unsqueeze(2).expand(-1, -1, 7, -1, -1)
    flat = torch.conv2d(image, weight)
    out = torch.conv3d(clip, inflate(weight, (4, 2, 5, 3, 3), mode), padding=(2, 0, 0))
    same = [torch.allclose(out[:, :, t], flat) for t in range(7)]
    assert same == (
        [True] * 7 if mode == 'centre' else [False, False, True, True, True, False, False]
    )


def test_layer_scale_gains_an_axis():
    gamma = torch.rand(1, 8, 1, 1)
    assert torch.equal(inflate(gamma, (1, 8, 1, 1, 1)), gamma.unsqueeze(2))


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        ((4, 2, 3, 3), (4, 2, 2, 3, 3)),  # even kernel: no middle frame
        ((4, 2, 3, 3), (4, 2, 3, 5, 5)),
        ((4, 2, 3, 3, 3), (4, 2, 5, 3, 3)),  # three frames cannot grow
        ((4, 2), (4, 2, 3, 3, 3)),
        ((4, 2, 3, 3), (4, 2, 3, 3)),
    ],
)
def test_what_cannot_be_inflated(source, target):
    assert not can_inflate(torch.zeros(source), target)
    with pytest.raises(ValueError, match=r'cannot be inflated to \('):
        inflate(torch.zeros(source), target)


def test_unknown_mode(tmp_path):
    with pytest.raises(ValueError, match=r"inflation='max' is not known; use one of \('mean'"):
        inflate(torch.zeros(1, 1, 1, 1), (1, 1, 1, 1, 1), 'max')
    with pytest.raises(ValueError, match=r"inflation='center' is not known"):
        load_weights(UniFormer3d(TINY), tmp_path / 'w.pth', inflation='center')


def load_both(tmp_path, inflation: str, **options) -> tuple[dict, torch.nn.Module]:
    state = classifier_state()
    path = save(tmp_path / 'w.pth', {'model': state})
    model = UniFormer3dClassifier(TINY, num_classes=10, **options)
    load_weights(model, path, inflation=inflation)
    return state, model


@pytest.mark.parametrize('options', [{}, {'patch_kernel_t': 3}])
def test_mean_is_the_default_and_every_kernel_follows(tmp_path, options):
    """The official rule recomputed: repeat over the time kernel, divide by its length."""
    state = classifier_state()
    path = save(tmp_path / 'w.pth', {'model': state})
    model = UniFormer3dClassifier(TINY, num_classes=10, **options)
    report = load_weights(model, path)
    lengths = set()
    for key, value in model.state_dict().items():
        source = state[key].numpy()
        if value.ndim == 5:
            frames = value.shape[2]
            source = np.repeat(source[:, :, None], frames, axis=2) / frames
            lengths.add((key.split('.')[0][:-1], frames))
        np.testing.assert_array_equal(value.numpy(), source, err_msg=key)
    downsampling = options.get('patch_kernel_t', 1)
    assert lengths == {
        *(('blocks', frames) for frames in (1, 3, 5)),
        *(('patch_embed', frames) for frames in (3, downsampling)),
    }
    assert len(report.inflated) == sum(v.ndim == 5 for v in model.state_dict().values())


@pytest.mark.parametrize('options', [{}, {'patch_kernel_t': 3}])
def test_centre_inflated_still_clip_equals_the_image_on_every_frame(tmp_path, options):
    state, model = load_both(tmp_path, 'centre', **options)
    flat = UniFormer2dClassifier(TINY, num_classes=10)
    flat.load_state_dict(state)
    flat, model = flat.double().eval(), model.double().eval()
    image = images(2)
    clip = image.unsqueeze(2).expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        for x_BCHW, x_BCTHW in zip(flat.iter_stages(image), model.iter_stages(clip), strict=True):
            assert x_BCTHW.shape[2] == 4
            for t in range(4):
                torch.testing.assert_close(x_BCTHW[:, :, t], x_BCHW, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(model(clip), flat(image), rtol=1e-9, atol=1e-11)


def test_mean_inflated_still_clip_differs_at_the_ends_of_time(tmp_path):
    """So the test above can fail: it does for the other mode."""
    state, model = load_both(tmp_path, 'mean')
    flat = UniFormer2dClassifier(TINY, num_classes=10)
    flat.load_state_dict(state)
    clip = images(1).unsqueeze(2).expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        still = model.double().eval()(clip)
        assert not torch.allclose(still, flat.double().eval()(images(1)), rtol=1e-3)


@pytest.mark.parametrize('inflation', ['mean', 'centre'])
def test_patch_kernels_grow_from_video_weights(tmp_path, inflation):
    """K400 weights with kernel 1 into patch_kernel_t=3; the official loader cannot do this."""
    state = classifier_state(ndim=3)
    model = UniFormer3dClassifier(TINY, num_classes=10, patch_kernel_t=3)
    report = load_weights(
        model, save(tmp_path / 'w.pth', {'model_state': state}), inflation=inflation
    )
    assert report.inflated == tuple(f'patch_embed{s}.proj.weight' for s in (2, 3, 4))
    for key, value in model.state_dict().items():
        if key in report.inflated:
            taps = value.numpy()
            one = state[key].numpy()[:, :, 0]
            weights = [1 / 3] * 3 if inflation == 'mean' else [0, 1, 0]
            for t, weight in enumerate(weights):
                np.testing.assert_allclose(taps[:, :, t], one * np.float32(weight), rtol=1e-6)
        else:
            assert torch.equal(value, state[key])


def test_clips_never_lose_their_time_axis(tmp_path):
    path = save(tmp_path / 'w.pth', {'model_state': classifier_state(ndim=3)})
    with pytest.raises(CheckpointError, match='3-D weights into a 2-D model'):
        load_weights(UniFormer2d(TINY), path)


def test_scaled_archs_inflate(tmp_path):
    state = classifier_state(TINY, layer_scale=0.1)
    model = UniFormer3dClassifier(TINY, num_classes=10, layer_scale=0.1)
    load_weights(model, save(tmp_path / 'w.pth', {'model': state}))
    assert torch.equal(model.blocks1[0].gamma_1[:, :, 0], state['blocks1.0.gamma_1'])
    assert torch.equal(model.blocks3[0].gamma_1, state['blocks3.0.gamma_1'])
