# SPDX-License-Identifier: Apache-2.0
"""Wilson's interval by its definition; weights of images equal copies of images."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math

import numpy as np
import pytest

from uniformer_mm.evaluation.metrics import intervals
from uniformer_mm.evaluation.metrics.intervals import (
    ResampledAP,
    mean_iou_interval,
    wilson,
)

from ..conftest import shared_dir

pytest.importorskip('pycocotools')
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


@pytest.mark.parametrize(('hits', 'total'), [(0, 7), (7, 7), (3, 10), (41, 50), (808, 1000)])
def test_the_ends_of_wilsons_interval_are_where_the_test_just_rejects(hits, total):
    for end in wilson(hits, total):
        share = end / 100
        distance = abs(hits / total - share)
        assert distance == pytest.approx(
            intervals.Z_95 * math.sqrt(share * (1 - share) / total), abs=1e-6
        )


def test_wilson_refuses_what_is_no_share():
    with pytest.raises(ValueError, match='hits=3 of total=2 is no share'):
        wilson(3, 2)


def test_weighted_mean_iou_equals_drawing_images_again():
    rng = np.random.default_rng(0)
    true_NK = rng.integers(0, 50, (9, 4))
    true_NK[:, 3] = 0
    true_NK[2, 3] = 5  # a class of one image only: absent from many bootstrap samples
    hit_NK = rng.integers(0, true_NK + 1)
    guess_NK = hit_NK + rng.integers(0, 9, (9, 4)) * (true_NK.sum(0) > 5)
    draws = intervals.image_weights(9, intervals.BOOTSTRAP_SAMPLES, seed=0)
    values = []
    for weights in draws:
        drawn = np.repeat(np.arange(9), weights)
        hit, true, guess = (part[drawn].sum(0) for part in (hit_NK, true_NK, guess_NK))
        with np.errstate(invalid='ignore'):
            values.append(100 * np.nanmean(hit / (true + guess - hit)))
    expected = np.percentile(values, [2.5, 97.5])
    assert mean_iou_interval(hit_NK, true_NK, guess_NK) == pytest.approx(expected, abs=1e-9)
    assert expected[0] < expected[1]


@pytest.fixture(scope='module')
def truth() -> dict:
    path = shared_dir('data', 'coco') / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    content['images'] = content['images'][:12]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in kept]
    return content


@pytest.fixture(scope='module')
def guesses(truth) -> list[dict]:
    """Shifted copies of the annotated boxes, some of another class, and some from nowhere."""
    rng = np.random.default_rng(0)
    found = []
    for item in truth['annotations']:
        for _ in range(rng.integers(0, 3)):
            x, y, w, h = item['bbox']
            box = [x + rng.normal(0, w / 12), y + rng.normal(0, h / 12), w, h]
            category = item['category_id'] if rng.random() < 0.8 else 1
            found.append({'image_id': item['image_id'], 'category_id': category,
                          'bbox': box, 'score': float(rng.random())})  # fmt: skip
    return found


def evaluate(truth: dict, guesses: list[dict]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(copy.deepcopy(guesses)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def copies(truth: dict, guesses: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """The data set with each image as often as its weight says, under new ids."""
    images, annotations, found = [], [], []
    order = sorted(truth['images'], key=lambda image: image['id'])
    for image, weight in zip(order, weights, strict=True):
        for _ in range(weight):
            number = len(images) + 1
            images.append({**image, 'id': number})
            for item in truth['annotations']:
                if item['image_id'] == image['id']:
                    annotations.append({**item, 'image_id': number, 'id': len(annotations) + 1})
            found += [{**g, 'image_id': number} for g in guesses if g['image_id'] == image['id']]
    return {**truth, 'images': images, 'annotations': annotations}, found


def test_weighted_ap_equals_pycocotools(truth, guesses):
    evaluation = evaluate(truth, guesses)
    resampled = ResampledAP(evaluation)
    assert 5 < 100 * evaluation.stats[0] < 95
    assert resampled.value() == pytest.approx(100 * evaluation.stats[0], abs=1e-9)
    draws = intervals.image_weights(len(truth['images']), 3, seed=1)
    assert (draws == 0).any() and (draws > 1).any()
    for weights in draws:
        repeated = evaluate(*copies(truth, guesses, weights))
        assert resampled.value(weights) == pytest.approx(100 * repeated.stats[0], abs=1e-9)


def test_the_interval_of_ap_is_around_it(truth, guesses):
    resampled = ResampledAP(evaluate(truth, guesses))
    low, high = resampled.interval()
    assert low < resampled.value() < high
    assert resampled.interval() == (low, high)
