# SPDX-License-Identifier: Apache-2.0
"""Reports say what the predictions say, load nothing else, and show in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from uniformer_mm.cli import main
from uniformer_mm.evaluation.protocol import Choices, build_config
from uniformer_mm.evaluation.record import Record, write_record
from uniformer_mm.evaluation.report import write_report
from uniformer_mm.evaluation.store import PredictionStore, Stored
from uniformer_mm.evaluation.worker import CONFIG

from ..conftest import ROOT, shared_dir

MAGENTA = (255, 0, 255)


class Page(HTMLParser):
    """Text, table rows, picture addresses and other addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.rows, self.pictures, self.addresses = '', [], [], []
        self._cell = False
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == 'img':
            self.pictures.append(attributes['src'])
        self.addresses += [v for k, v in attrs if k in ('href', 'src', 'srcset', 'action', 'data')]
        if tag == 'tr':
            self.rows.append([])
        self._cell = tag in ('td', 'th') or (self._cell and tag == 'span')
        if tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ('td', 'th')

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data


def finished_test(
    folder: Path, config: str, data: Path, stored: list[Stored], classes: list[str], **facts
) -> Path:
    """A folder as reproduce leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    task = config.split('/')[0]
    boxes = {'boxes': 'gt'} if task == 'pose' else {}
    test = build_config(ROOT / 'configs' / config, task, Choices(data=data, **boxes), folder)
    test.dump(folder / CONFIG)
    store = PredictionStore(folder, {})
    store.add(stored)
    store.close()
    values = dict(
        row='row/under_test', task=task, config=config, protocol={}, published={}, intervals={},
        interval_method='', listed=len(stored), samples=len(stored), files=len(stored), missing=0,
        limit=None, seed=0, weights='w.pth', weights_sha256='0' * 64, class_order='',
        config_sha256='1' * 64, list_sha256='2' * 64, device='CPU', classes=classes,
        date='2026-01-01T00:00:00+00:00', versions={'torch': '2'}, seconds=1.0,
    )  # fmt: skip
    write_record(Record(**values | facts), folder)
    return write_report(folder)


def check_self_contained(page: Page, pictures: int) -> None:
    assert len(page.pictures) == pictures
    assert all(address.startswith('data:image/') for address in page.addresses)


@pytest.fixture(scope='module')
def classified(tmp_path_factory) -> tuple[Path, list[tuple[int, int]]]:
    """Photos of three classes, guesses of which some are wrong, and one photo that is magenta."""
    root = tmp_path_factory.mktemp('report')
    truth_and_guess = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (2, 0)]
    stored = []
    for index, (label, guess) in enumerate(truth_and_guess):
        path = root / f'class<{label}>' / f'{index}.png'
        path.parent.mkdir(exist_ok=True)
        colour = MAGENTA if index == 5 else (20 * index, 90, 200 - 20 * index)
        cv2.imwrite(str(path), np.full((200, 300, 3), colour, np.uint8))
        chances = torch.full((3,), (1 - 0.5 - 0.04 * index) / 2)
        chances[guess] = 0.5 + 0.04 * index
        result = {'pred_score': chances, 'gt_label': torch.tensor([label])}
        key = '/'.join(path.parts[-2:])
        stored.append(Stored(index, key, str(path), 0.01 * (index + 1), [result]))
    folder = root / 'test'
    page = finished_test(
        folder, 'cls/uniformer_s_in1k.py', root, stored, ['first', 'second<b>', 'third'],
        metrics={'top1': 55.56}, published={'top1': 82.9},
    )  # fmt: skip
    return page, truth_and_guess


def test_a_classification_report(classified):
    path, pairs = classified
    page = Page(path)
    # Confusion matrix, latency, four worst (there are four wrong ones) and five best.
    check_self_contained(page, 2 + 4 + 5)
    assert ['top1', '55.56', '82.9', '-27.34'] in page.rows
    assert 'top1 OUTSIDE 0.15 points of the published result' in page.text
    wrong = [pair for pair in pairs if pair == (2, 1)]
    assert ['third', 'second<b>', str(len(wrong)), '50 %'] in page.rows
    assert ['third', '4', '25.0', '100.0', 'second<b>'] in page.rows
    # The surest mistake comes first: sample 8 (0.82), then 6, 5, 2.
    places = [page.text.index(f'{i}.png') for i in (8, 6, 5, 2)]
    assert places == sorted(places)
    assert '<b>' not in path.read_text().replace('&lt;b&gt;', '')
    assert '50.0' in page.text and '90.0' in page.text  # median and longest of 10 ... 90 ms


def test_the_page_shows_in_a_browser(classified, tmp_path):
    browser = shutil.which('chromium') or shutil.which('chromium-browser')
    if browser is None:
        pytest.skip('no chromium on the PATH (apt-get install chromium)')
    path, _ = classified
    picture = tmp_path / 'page.png'
    subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
         f'--user-data-dir={tmp_path / "profile"}', '--window-size=1240,2600',
         f'--screenshot={picture}', path.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    shown = cv2.imread(str(picture))
    assert shown.shape[:2] == (2600, 1240)
    # The magenta photo is there at its size: pictures in the page are decoded and laid out.
    magenta = (np.abs(shown.astype(int) - MAGENTA).max(axis=2) < 12).sum()
    assert magenta > 100 * 150
    # The red of a verdict outside the tolerance, and the blue of the confusion matrix.
    for red, green, blue in ((0xFB, 0xDC, 0xDC), (0x08, 0x30, 0x6B)):
        assert (np.abs(shown.astype(int) - (blue, green, red)).max(axis=2) < 6).sum() > 100


def test_a_segmentation_report(tmp_path):
    ade = shared_dir('data', 'ade', 'ADEChallengeData2016').resolve()
    (tmp_path / 'ade').mkdir()
    (tmp_path / 'ade/ADEChallengeData2016').symlink_to(ade)
    names = [f'class {i}' for i in range(150)]
    stored, correct = [], {}
    for index, photo in enumerate(
        sorted((tmp_path / 'ade/ADEChallengeData2016/images/validation').iterdir())
    ):
        file = ade / 'annotations/validation' / f'{photo.stem}.png'
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        truth = np.where(labels == 0, 255, labels - 1).astype(np.uint8)
        guess = np.where(truth == 255, 0, truth).astype(np.uint8)
        guess[:, : guess.shape[1] * index // 4] = 7
        counted = truth != 255
        pairs = truth[counted].astype(int) * 150 + guess[counted]
        cells, counts = np.unique(pairs, return_counts=True)
        correct[photo.name] = np.mean(guess[counted] == truth[counted])
        result = {
            'cells': cells.astype(np.int32), 'counts': counts.astype(np.int32),
            'map': zlib.compress(guess.tobytes()), 'shape': guess.shape,
        }  # fmt: skip
        stored.append(Stored(index, f'validation/{photo.name}', str(photo), 0.1, [result]))
    page = Page(
        finished_test(
            tmp_path / 'test',
            'seg/fpn_uniformer_s.py',
            tmp_path,
            stored,
            names,
            metrics={'mIoU': 50.0},
        )
    )
    check_self_contained(page, 2 + 2 + 2)
    order = sorted(correct, key=correct.get)
    assert page.text.index(order[0]) < page.text.index('Best images') < page.text.index(order[-1])
    mistakes = [row for row in page.rows if len(row) == 4 and row[1] == 'class 7']
    assert mistakes and all(re.fullmatch(r'[\d,]+', row[2]) for row in mistakes)


@pytest.mark.parametrize('task', ['det', 'pose'])
def test_a_detection_and_a_pose_report(task, tmp_path):
    pytest.importorskip('pycocotools')
    source = shared_dir('data', {'det': 'coco', 'pose': 'coco_pose'}[task]).resolve()
    (tmp_path / 'coco').symlink_to(source)
    name = {'det': 'instances', 'pose': 'person_keypoints'}[task]
    truth = json.loads((source / f'annotations/{name}_val2017.json').read_text())
    images = {image['id']: image for image in truth['images']}
    rng = np.random.default_rng(0)
    stored, found = [], []
    for index, image in enumerate(images.values()):
        path = tmp_path / 'coco/val2017' / image['file_name']
        part = {'img_id': image['id']}
        stored.append(Stored(index, image['file_name'], str(path), 0.1, [(part, part)]))
        for item in truth['annotations']:
            if item['image_id'] != image['id'] or item['iscrowd'] or index % 3 == 0:
                continue
            guess = {'image_id': image['id'], 'category_id': item['category_id'],
                     'score': float(rng.uniform(0.4, 1))}  # fmt: skip
            if task == 'det':
                guess['bbox'] = [v + rng.normal(0, 1) for v in item['bbox']]
            else:
                guess['keypoints'] = [float(v) for v in item['keypoints']]
            found.append(guess)
    folder = tmp_path / 'test'
    folder.mkdir()
    file = {'det': 'bbox', 'pose': 'keypoints'}[task]
    (folder / f'predictions.{file}.json').write_text(json.dumps(found))
    config = {'det': 'det/mask_rcnn_uniformer_s.py', 'pose': 'pose/td_hm_uniformer_s_256x192.py'}
    metric = {'det': 'bbox_mAP', 'pose': 'AP'}[task]
    classes = [c['name'] for c in truth['categories']] if task == 'det' else []
    page = Page(
        finished_test(folder, config[task], tmp_path, stored, classes, metrics={metric: 50.0})
    )
    check_self_contained(page, 2 + 6 + 6)
    categories = {row[0]: row for row in page.rows if len(row) == 5}
    persons = sum(a['category_id'] == 1 for a in truth['annotations'])
    assert categories['person'][1] == str(persons)
    # A third of the images has no detection: AP is far from 0 and from 100.
    assert 20 < float(categories['person'][2]) < 90
    worst = page.text[page.text.index('Worst images') : page.text.index('Best images')]
    assert 'F1 0.00' in worst and ', 0 found' in worst
    assert 'F1 1.00' in page.text[page.text.index('Best images') :]


def test_folders_without_a_finished_test(tmp_path, capsys):
    assert main(['report', str(tmp_path)]) == 2
    assert 'holds no finished test' in ' '.join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
