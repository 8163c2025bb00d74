# SPDX-License-Identifier: Apache-2.0
"""Our metrics give the toolboxes' numbers to the last digit, and those of plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData

from uniformer_mm.evaluation import ConfusionIoU, ViewAccuracy
from uniformer_mm.evaluation.metrics.confusion import image_confusion, image_labels, iou_summary
from uniformer_mm.evaluation.metrics.views import fuse_views

CLASSES = 9


def videos(count: int = 60) -> list[dict]:
    """Logits of four views that often agree with the label, some of them tied."""
    torch.manual_seed(0)
    found = []
    for index in range(count):
        label = index % CLASSES
        logits = torch.randn(4, CLASSES) * 2
        logits[:, label] += 1.0
        logits[:, 3] = logits[:, 4]
        found.append({'pred_score': logits, 'gt_label': torch.tensor([label])})
    return found


def measure(metric, samples: list[dict], classes: int | None = None) -> dict:
    if classes is not None:
        metric.dataset_meta = {'classes': [f'c{i}' for i in range(classes)]}
    for start in range(0, len(samples), 7):
        metric.process(None, samples[start : start + 7])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('fusion', ['logits', 'prob'])
def test_views_give_mmaction2s_accuracies_under_both_fusions(fusion):
    accuracy = pytest.importorskip('mmaction.evaluation').AccMetric
    samples = videos()
    ours = measure(ViewAccuracy(fusion=fusion), samples)
    for name, suffix in ((fusion, ''), ({'logits': 'prob', 'prob': 'logits'}[fusion], None)):
        stacked = torch.stack([s['pred_score'] for s in samples])
        # BaseHead.average_clip of mmaction2 1.2.0
        fused = (stacked.softmax(dim=2) if name == 'prob' else stacked).mean(dim=1)
        whole = [{**s, 'pred_score': f} for s, f in zip(samples, fused, strict=True)]
        theirs = measure(accuracy(), whole)
        end = f'_{name}' if suffix is None else ''
        assert ours[f'acc/top1{end}'] == theirs['acc/top1']
        assert ours[f'acc/top5{end}'] == theirs['acc/top5']
        if suffix == '':
            assert ours['acc/mean1'] == pytest.approx(theirs['acc/mean1'], abs=1e-12)
    assert 0.2 < ours['acc/top1'] < 0.95


def test_fusions_are_the_official_sum_and_the_mean_of_probabilities():
    logits = torch.tensor([[0.0, 2.0, -1.0], [5.0, 2.5, 0.0]])
    assert fuse_views(logits, 'logits').argsort().tolist() == logits.sum(0).argsort().tolist()
    expected = [np.exp(row) / np.exp(row).sum() for row in logits.double().numpy()]
    assert np.allclose(fuse_views(logits, 'prob'), np.mean(expected, axis=0))
    with pytest.raises(ValueError, match=r"fusion='max' is not known; use one of \('logits'"):
        fuse_views(logits, 'max')
    with pytest.raises(ValueError, match="fusion='max' is not known"):
        ViewAccuracy(fusion='max')


def test_a_head_that_fuses_itself_is_refused():
    sample = {'pred_score': torch.zeros(CLASSES), 'gt_label': torch.tensor([0])}
    with pytest.raises(ValueError, match=r'shape \(9,\).*average_clips=None'):
        ViewAccuracy().process(None, [sample])


def maps(count: int = 5) -> list[dict]:
    """Label maps of several sizes with ignored pixels; class 7 is never true, 8 never predicted."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        shape = (20 + index, 31 - index)
        truth = rng.choice([0, 1, 2, 3, 4, 5, 6, 8, 255], shape)
        guess = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, 8, shape))
        guess = np.where(np.isin(guess, (8, 255)), 7, guess)
        found.append({
            'pred_sem_seg': {'data': torch.from_numpy(guess)[None]},
            'gt_sem_seg': {'data': torch.from_numpy(truth)[None]},
        })  # fmt: skip
    return found


def test_confusion_gives_mmsegs_numbers():
    iou_metric = pytest.importorskip('mmseg.evaluation').IoUMetric
    ours = measure(ConfusionIoU(), maps(), CLASSES)
    theirs = measure(iou_metric(), maps(), CLASSES)
    assert ours == theirs
    assert 20 < ours['mIoU'] < 80


def test_confusion_equals_a_loop_over_pixels():
    metric = ConfusionIoU()
    metric.dataset_meta = {'classes': list(range(CLASSES))}
    samples = maps(2)
    metric.process(None, samples)
    for sample, result in zip(samples, metric.results, strict=True):
        guess, truth = (sample[k]['data'][0].numpy() for k in ('pred_sem_seg', 'gt_sem_seg'))
        expected = np.zeros((CLASSES, CLASSES), int)
        for t, g in zip(truth.ravel(), guess.ravel(), strict=True):
            if t != 255:
                expected[t, g] += 1
        assert np.array_equal(image_confusion(result, CLASSES), expected)
        assert np.array_equal(image_labels(result), guess)


def test_no_pixel_is_lost_where_single_precision_loses_them():
    counts = np.array([2**24 + 1, 1], np.int32)
    images = [{'cells': np.array([0, 3], np.int32), 'counts': counts}] * 9
    summary = iou_summary(sum(image_confusion(image, 2) for image in images))
    assert summary['aAcc'] == 1.0
    total = sum(image_confusion(image, 2) for image in images)
    assert total[0, 0] == 9 * (2**24 + 1) != int(np.float32(9 * (2**24 + 1)))


def test_running_sums_equal_mmsegs_merged_predictions():
    segmentors = pytest.importorskip('mmseg.models.segmentors')
    from uniformer_mm.evaluation import RunningSegTTA

    torch.manual_seed(0)
    logits = torch.randn(12, 2, CLASSES, 13, 17)

    class Segmentor(torch.nn.Module):
        """Hands out what was drawn above: the passes of two images."""

        out_channels = CLASSES

        def test_step(self, data: dict) -> list:
            return [
                BaseDataElement(
                    metainfo={'img_path': f'{i}.jpg'},
                    seg_logits=PixelData(data=logits[data['inputs'], i].clone()),
                    gt_sem_seg=PixelData(data=torch.full((1, 13, 17), i)),
                )
                for i in range(2)
            ]

    data = {'inputs': list(range(12)), 'data_samples': [None] * 12}
    theirs = segmentors.SegTTAModel(module=Segmentor()).test_step(data)
    ours = RunningSegTTA(module=Segmentor()).test_step(data)
    for image, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(a.pred_sem_seg.data.squeeze(), b.pred_sem_seg.data.squeeze())
        assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
        assert a.metainfo['img_path'] == f'{image}.jpg'
        plain = np.exp(logits[:, image].double().numpy())
        mean = (plain / plain.sum(1, keepdims=True)).mean(0)
        assert np.array_equal(a.pred_sem_seg.data.squeeze().numpy(), mean.argmax(0))
