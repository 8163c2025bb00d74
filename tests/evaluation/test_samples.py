# SPDX-License-Identifier: Apache-2.0
"""Subsets and digests are the same wherever the data lies and however it is listed."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from uniformer_mm.evaluation.running.loop import count_files
from uniformer_mm.evaluation.running.samples import choose, list_digest, list_samples, split_missing


class Listing:
    """A data set of mmengine, as far as it matters here."""

    def __init__(self, infos: list[dict]) -> None:
        self.infos = infos

    def __len__(self) -> int:
        return len(self.infos)

    def get_data_info(self, index: int) -> dict:
        return self.infos[index]


def videos(root: str, order: list[int]) -> list:
    infos = [{'filename': f'{root}/class{i % 3}/v{i}.mp4', 'label': i % 3} for i in order]
    return list_samples(Listing(infos))


def test_a_subset_depends_on_the_files_alone():
    order = list(range(40))
    here = choose(videos('/data', order), 10)
    assert len(here) == 10 and [s.position for s in here] == sorted(s.position for s in here)
    random.Random(1).shuffle(order)
    there = choose(videos('/mnt/somewhere/else', order), 10)
    assert {s.key for s in there} == {s.key for s in here}
    assert {s.key for s in choose(videos('/data', order), 10, seed=1)} != {s.key for s in here}
    # A larger subset holds the smaller one.
    assert {s.key for s in choose(videos('/data', order), 20)} > {s.key for s in here}
    assert len(choose(videos('/data', order), 99)) == 40
    with pytest.raises(ValueError, match='limit=0 must be at least 1'):
        choose(here, 0)


def test_persons_of_an_image_go_together():
    infos = [
        {'img_path': f'/d/val/{i // 3}.jpg', 'img_id': i // 3, 'bbox': np.array([[i, 0, 9, 9.0]])}
        for i in range(30)
    ]
    chosen = choose(list_samples(Listing(infos)), 4)
    assert len(chosen) == 12
    assert len({s.key for s in chosen}) == 4


class Truth:
    """A metric with a ground truth of 7 images, as mmdet's or as mmpose's."""

    def __init__(self, name: str) -> None:
        setattr(self, name, SimpleNamespace(imgs=dict.fromkeys(range(7))))


def test_files_are_counted_once_and_images_without_persons_too():
    infos = [{'img_path': f'/d/val/{i // 3}.jpg', 'img_id': i // 3} for i in range(12)]
    persons = list_samples(Listing(infos))
    assert count_files(persons, SimpleNamespace(metrics=[object()])) == 4
    for name in ('_coco_api', 'coco'):
        assert count_files(persons, SimpleNamespace(metrics=[Truth(name)])) == 7


def test_the_digest_knows_order_labels_boxes_and_annotation_files(tmp_path):
    base = videos('/data', list(range(5)))
    assert list_digest(base) == list_digest(videos('/other', list(range(5))))
    assert list_digest(base) != list_digest(videos('/data', [1, 0, 2, 3, 4]))
    relabelled = list_samples(Listing([{'filename': '/data/class0/v0.mp4', 'label': 1}]))
    assert list_digest(base[:1]) != list_digest(relabelled)
    boxes = [
        list_samples(Listing([{'img_path': 'a/b', 'img_id': 1, 'bbox': np.full((1, 4), x)}]))
        for x in (1.0, 2.0)
    ]
    assert list_digest(boxes[0]) != list_digest(boxes[1])
    (tmp_path / 'a.json').write_text('1')
    assert list_digest(base, [tmp_path / 'a.json']) != list_digest(base)


def test_missing_files_are_found(tmp_path):
    (tmp_path / 'class0').mkdir()
    (tmp_path / 'class0/v0.mp4').touch()
    there, missing = split_missing(videos(str(tmp_path), [0, 1, 3]))
    assert [s.path for s in there] == [Path(tmp_path, 'class0/v0.mp4')]
    assert [s.key for s in missing] == ['class1/v1.mp4', 'class0/v3.mp4']


def test_lists_that_are_none():
    with pytest.raises(ValueError, match='the data set is empty'):
        list_samples(Listing([]))
    with pytest.raises(ValueError, match=r"names no file, only \['label'\]"):
        list_samples(Listing([{'label': 3}]))
