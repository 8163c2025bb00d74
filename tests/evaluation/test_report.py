# SPDX-License-Identifier: Apache-2.0
"""Reports say what the predictions say, load nothing else, and show in a real browser."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from uniformer_mm.cli import main
from uniformer_mm.evaluation.report import write_report
from uniformer_mm.evaluation.report.classify import read_guess
from uniformer_mm.evaluation.running.store import Stored

from .report_cases import CASES, Case, chances_of, finish, make

WIDTH, HEIGHT = 1240, 5200
# A colour as one number.
CODE = np.array([1, 1 << 8, 1 << 16], np.int32)
# Pictures beside the confusion matrix or curve and the latency: worst, best.
PICTURES = {'cls': (8, 8), 'video': (2, 3), 'seg': (2, 1), 'det': (6, 6), 'pose': (6, 6)}


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


def check_self_contained(page: Page, pictures: int) -> None:
    assert len(page.pictures) == pictures
    assert all(address.startswith('data:image/') for address in page.addresses)


@pytest.fixture(scope='module')
def classified(tmp_path_factory) -> tuple[Path, list[tuple[int, int]]]:
    """Photos of three classes, and guesses of which some are wrong."""
    root = tmp_path_factory.mktemp('report')
    truth_and_guess = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (2, 0)]
    stored = []
    for index, (label, guess) in enumerate(truth_and_guess):
        path = root / f'class<{label}>' / f'{index}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((20, 30, 3), 20 * index, np.uint8))
        chances = chances_of(guess, 0.5 + 0.04 * index, 3)
        result = {'pred_score': chances, 'gt_label': torch.tensor([label])}
        key = '/'.join(path.parts[-2:])
        stored.append(Stored(index, key, str(path), 0.01 * (index + 1), [result]))
    facts = {
        'metrics': {'top1': 55.56},
        'published': {'top1': 83.0},
        'classes': ['first', 'second<b>', 'third'],
    }
    case = Case('cls/uniformer_s_in1k.py', stored, facts)
    return write_report(finish(root / 'test', root, case)), truth_and_guess


def test_a_classification_report(classified):
    path, pairs = classified
    page = Page(path)
    # Confusion matrix, latency, four worst (there are four wrong ones) and five best.
    check_self_contained(page, 2 + 4 + 5)
    assert ['top1', '55.56', '83.0', '-27.44'] in page.rows
    assert 'top1 OUTSIDE 0.15 points of the published result' in page.text
    wrong = [pair for pair in pairs if pair == (2, 1)]
    assert ['third', 'second<b>', str(len(wrong)), '50 %'] in page.rows
    assert ['third', '4', '25.0', '100.0', 'second<b>'] in page.rows
    # The surest mistake comes first: sample 8 (0.82), then 6, 5, 2.
    places = [page.text.index(f'{i}.png') for i in (8, 6, 5, 2)]
    assert places == sorted(places)
    assert '<b>' not in path.read_text().replace('&lt;b&gt;', '')
    assert '50.0' in page.text and '90.0' in page.text  # median and longest of 10 ... 90 ms


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    """Reports of the five tasks, each written once: page, folder, what it is about."""
    made: dict[str, tuple[Path, Path, Case]] = {}

    def report(kind: str) -> tuple[Path, Path, Case]:
        if kind not in made:
            folder, case = make(kind, tmp_path_factory.mktemp(kind))
            made[kind] = write_report(folder), folder, case
        return made[kind]

    return report


def test_a_report_on_photos(reports):
    path, _, case = reports('cls')
    page = Page(path)
    check_self_contained(page, 2 + sum(PICTURES['cls']))
    assert ['top1', '80.00', '80.0', '+0.00'] in page.rows
    assert ['English springer', '8', '75.0', '100.0', 'cassette player'] in page.rows
    for label, guess in {pair for pair in case.truth if pair[0] != pair[1]}:
        times = case.truth.count((label, guess))
        share = f'{100 * times / 8:.0f} %'
        names = [case.facts['classes'][index] for index in (label, guess)]
        assert [*names, str(times), share] in page.rows


def test_a_report_on_videos(reports):
    path, _, _ = reports('video')
    page = Page(path)
    check_self_contained(page, 2 + sum(PICTURES['video']))
    # The list's own names, in the order that the test states.
    assert ['tai chi', 'abseiling', '1', '50 %'] in page.rows
    assert ['arm wrestling', 'abseiling', '1', '100 %'] in page.rows
    assert ['clean and jerk', '1', '100.0', '100.0', ''] in page.rows
    assert 'the mean of probabilities instead would change top-1 by +0.00' in page.text
    assert ['top1', '60.00', '80.8', '-20.80', '23.07 to 88.24'] in page.rows
    worst, best = page.text.index('Worst: '), page.text.index('Best: ')
    # The surest mistake is the folder of frames: logit 10 of 400 classes, the true one tied second.
    share = np.exp(10) / (np.exp(10) + 399)
    words = f'predicted abseiling ({share:.0%}), true tai chi (place 2) — frames/ta_chi'
    assert worst < page.text.index(words) < page.text.index('mmaction2_demo.mp4') < best
    order = [page.text.index(f'/{name}', best) for name in ('ta_chi', 'skateboarding', 'clean')]
    assert order == sorted(order)
    # A strip: four different frames side by side for a clip and for the folder of frames.
    for address in page.pictures[1:3] + page.pictures[3:6]:
        strip = picture_of(address)
        height, width = strip.shape[:2]
        assert width > 4.5 * height
        parts = np.array_split(strip.astype(int), 4, axis=1)
        side = min(part.shape[1] for part in parts) - 8
        differences = [np.abs(parts[0][:, 4:side] - part[:, 4:side]).mean() for part in parts[1:]]
        assert min(differences) > 1


@pytest.mark.parametrize('kind', ['logits', 'probabilities'])
def test_scores_that_mmaction2s_metric_kept(kind):
    """--stock: AccMetric keeps what the head averaged, logits or probabilities."""
    metric = pytest.importorskip('mmaction.evaluation').AccMetric()
    logits = torch.tensor([0.5, 3.0, 1.0, -1.0])
    expected = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum()
    scores = logits if kind == 'logits' else torch.from_numpy(expected)
    sample = {'pred_score': scores, 'gt_label': torch.tensor([2])}
    metric.process({}, [sample])
    guess = read_guess(Stored(0, 'a/b.mp4', 'b.mp4', 0.1, metric.results), 'logits')
    np.testing.assert_allclose(guess.chances, expected, rtol=1e-6)
    assert (guess.label, guess.best, guess.rank, guess.right) == (2, 1, 2, False)


def test_a_report_on_label_maps(reports):
    path, _, case = reports('seg')
    page = Page(path)
    check_self_contained(page, 2 + sum(PICTURES['seg']))
    *others, best = sorted(case.truth, key=case.truth.get)
    # Three photos, each shown once: two worst, then the best.
    assert all(page.text.count(name) == 1 for name in case.truth)
    heading = page.text.index('Best images')
    assert max(map(page.text.index, others)) < heading < page.text.index(best)
    mistakes = [row for row in page.rows if len(row) == 4 and row[1] == 'class 7']
    assert mistakes and all(re.fullmatch(r'[\d,]+', row[2]) for row in mistakes)
    # Nowhere true: its IoU of 0 counts in the mean, its accuracy is not defined.
    assert ['class 7', '0.0', '-', '0.00'] in page.rows


@pytest.mark.parametrize('kind', ['det', 'pose'])
def test_a_report_on_boxes_and_on_persons(kind, reports):
    path, _, case = reports(kind)
    page = Page(path)
    check_self_contained(page, 2 + sum(PICTURES[kind]))
    categories = {row[0]: row for row in page.rows if len(row) == 5}
    persons = sum(item['category_id'] == 1 for item in case.truth['annotations'])
    assert categories['person'][1] == str(persons)
    # A third of the images has no detection: AP is far from 0 and from 100.
    assert 20 < float(categories['person'][2]) < 90
    worst = page.text[page.text.index('Worst images') : page.text.index('Best images')]
    assert 'F1 0.00' in worst and ', 0 found' in worst
    assert f'at {"OKS" if kind == "pose" else "IoU"} 0.5.' in worst
    assert 'F1 1.00' in page.text[page.text.index('Best images') :]


@pytest.mark.parametrize('kind', ['det', 'pose'])
def test_a_network_that_found_nothing(kind, tmp_path):
    case = CASES[kind](tmp_path)
    case.files = dict.fromkeys(case.files, '[]')
    case.facts['metrics'] = dict.fromkeys(case.facts['metrics'], 0.0)
    page = Page(write_report(finish(tmp_path / 'test', tmp_path, case)))
    assert 'The network found nothing.' in page.text
    assert [next(iter(case.facts['metrics'])), '0.00'] in page.rows
    check_self_contained(page, 1)


def picture_of(address: str) -> np.ndarray:
    """A picture of the page, BGR."""
    content = base64.b64decode(address.partition(',')[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def screenshot(page: Path, folder: Path) -> np.ndarray:
    """What a real browser shows of a page, BGR."""
    browser = shutil.which('chromium') or shutil.which('chromium-browser')
    if browser is None:
        pytest.skip(
            'no browser to draw the page with (pip has none; apt-get install chromium); what the '
            'page says is tested without one'
        )
    picture = folder / 'page.png'
    subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
         f'--user-data-dir={folder / "profile"}', f'--window-size={WIDTH},{HEIGHT}',
         f'--screenshot={picture}', page.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    shown = cv2.imread(str(picture))
    assert shown.shape[:2] == (HEIGHT, WIDTH)
    return shown


@pytest.mark.parametrize('kind', list(CASES))
def test_the_page_shows_in_a_browser(kind, reports, tmp_path):
    """Every picture is decoded and laid out: its place is found by painting it in one colour."""
    path, _, _ = reports(kind)
    shown = screenshot(path, tmp_path)
    page = Page(path)
    painted, colours = path.read_text(encoding='utf-8'), []
    for index, address in enumerate(page.pictures):
        colours.append((255 - 5 * index, 10 * index, 255))
        flat = np.full(picture_of(address).shape, colours[-1], np.uint8)
        png = base64.b64encode(cv2.imencode('.png', flat)[1].tobytes()).decode()
        assert painted.count(address) == 1
        painted = painted.replace(address, f'data:image/png;base64,{png}')
    (tmp_path / 'painted.html').write_text(painted, encoding='utf-8')
    places = screenshot(tmp_path / 'painted.html', tmp_path).astype(np.int32) @ CODE
    for address, colour in zip(page.pictures, colours, strict=True):
        rows, columns = np.nonzero(places == np.dot(colour, CODE))
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        # One whole rectangle (its corners are round), large enough to see, within the page.
        assert len(rows) > 0.99 * (bottom - top) * (right - left)
        assert right - left >= 180 and right < WIDTH - 40 and bottom < HEIGHT
        picture = picture_of(address)
        ratio = picture.shape[1] / picture.shape[0]
        assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.03)
        expected = cv2.resize(picture, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        found = shown[top:bottom, left:right].astype(int)
        assert np.abs(found - expected)[4:-4, 4:-4].mean() < 8
        assert expected.std() > 10
    # The page ends above the end of the window: nothing was out of sight.
    assert (shown[-50:] == shown[-1, 0]).all()
    verdict = {'cls': (0xD9, 0xF2, 0xE1)}.get(kind, (0xE6, 0xEA, 0xF0))
    assert (shown[:300] == verdict[::-1]).all(axis=2).sum() > 2000


def test_an_outside_verdict_is_red_in_a_browser(classified, tmp_path):
    shown = screenshot(classified[0], tmp_path)
    assert (shown[:300] == (0xDC, 0xDC, 0xFB)).all(axis=2).sum() > 2000


def test_output_that_cannot_be_written(reports, tmp_path, capsys):
    _, folder, _ = reports('video')
    (tmp_path / 'file').write_text('precious')
    for output, words in (
        (tmp_path / 'file/report.html', 'cannot be written ('),
        (tmp_path, 'is a folder, but a file is to be written there.'),
    ):
        assert main(['report', str(folder), '--output', str(output)]) == 2
        assert f'{output}: {words}' in ' '.join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ['file']
    assert main(['report', str(folder), '--output', str(tmp_path / 'page.html')]) == 0
    assert str(tmp_path / 'page.html') in capsys.readouterr().out
    assert Page(tmp_path / 'page.html').pictures


def test_folders_without_a_finished_test(tmp_path, capsys):
    assert main(['report', str(tmp_path)]) == 2
    assert 'holds no finished test' in ' '.join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
