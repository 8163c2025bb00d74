# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm reproduce`` of rows of the papers, from its words to its exit status."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from uniformer_mm.evaluation import PredictionStore
from uniformer_mm.evaluation.record import read_record
from uniformer_mm.evaluation.running import reproduce as reproduce_module
from uniformer_mm.models import UniFormer2dClassifier

from ..conftest import ROOT
from .helpers import command

LABELS = (3, 700, 3)
SIDE = 248  # int(224 / 0.9), so that token labelling's photos are not resized
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope='module')
def photos(tmp_path_factory) -> Path:
    """The root of an ImageNet of three photos, listed with their labels."""
    root = tmp_path_factory.mktemp('photos')
    (root / 'imagenet/val').mkdir(parents=True)
    (root / 'imagenet/meta').mkdir()
    rng = np.random.default_rng(0)
    for index in range(len(LABELS)):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        photo = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f'imagenet/val/{index}.png'), photo)
    lines = [f'{index}.png {label}' for index, label in enumerate(LABELS)]
    (root / 'imagenet/meta/val.txt').write_text('\n'.join(lines) + '\n')
    return root


def random_weights(arch: str, path: Path) -> UniFormer2dClassifier:
    """A file of random weights as the authors write theirs, and its network."""
    torch.manual_seed(0)
    network = UniFormer2dClassifier(arch, num_classes=1000).eval()
    torch.save({'model': network.state_dict()}, path)
    return network


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_row_from_the_command_line(photos, tmp_path):
    """Its words, exit status and record; then the same folder as a table and as a page."""
    pytest.importorskip('mmpretrain')
    weights, work = tmp_path / 'small.pth', tmp_path / 'work'
    random_weights('small', weights)
    done = subprocess.run(
        [sys.executable, '-c', 'from uniformer_mm.cli import main; raise SystemExit(main())',
         'reproduce', 'cls/s', '--data', str(photos), '--weights', str(weights), '--gpus', '0',
         '--workers', '0', '--batch-size', '2', '--work-dir', str(work)],
        env=os.environ | {'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, '')
    folder = work / 'cls-s' / 'official'
    record = read_record(folder / 'record.json')
    lines = [' '.join(line.split()) for line in done.stdout.splitlines()]
    # The bar has reached its end, and the toolbox's own output is in run.log only.
    assert re.fullmatch(r'cls/s \S+ 3/3 .*', lines[0])
    assert 'mmengine' not in done.stdout and 'mmengine' in (folder / 'run.log').read_text()
    top1 = record.metrics['top1']
    assert f'top1 82.9 {top1:.2f} {top1 - 82.9:+.2f}' in lines
    words = 'no verdict: a list of 3 files, the published result is of 50,000'
    assert f'verdict {words}' in lines
    assert 'data 3 files of 3 listed; 0 missing' in lines
    assert f'record {folder}/record.json' in lines

    # Each digest by its definition.
    assert record.weights_sha256 == sha256(weights.read_bytes())
    assert f'weights small.pth, sha256 {record.weights_sha256}' in lines
    listed = ''.join(f'val/{i}.png\t{label}\n' for i, label in enumerate(LABELS))
    assert record.list_sha256 == sha256(listed.encode())
    assert f'data list sha256 {record.list_sha256}' in lines
    config = Config.fromfile(folder / 'test.py')
    parts = {
        'model': config.model, 'dataset': config.test_dataloader.dataset,
        'evaluator': config.test_evaluator, 'preprocessor': config.data_preprocessor,
    }  # fmt: skip
    text = json.dumps(parts, sort_keys=True, default=str)
    assert record.config_sha256 == sha256(text.replace(str(photos), '').encode())
    assert (record.listed_files, record.published_files) == (3, 50_000)

    status, text = command('results', str(work), '--measured')
    assert status == 0 and f'cls/s 82.9 {top1:.1f}, n 3' in text
    status, text = command('report', str(folder))
    assert status == 0 and text.replace(' ', '') == f'{folder}/report.html'
    assert words in (folder / 'report.html').read_text()


def test_mistakes_name_the_options(tmp_path):
    for words, said in (
        (['mine.py'], 'mine.py: no such file; name a config that is there, or a row of'),
        ([str(tmp_path / 'a.py')], f'{tmp_path}/a.py: no such file'),
        (['cls/s', '--batch-size', '0'], '--batch-size=0 must be at least 1'),
        (['cls/s', '--weights', 'w.pth', '--data', str(tmp_path), '--multi-scale'],
         '--multi-scale is a choice for seg rows; this one is cls'),
    ):  # fmt: skip
        status, text = command('reproduce', *words, '--work-dir', str(tmp_path / 'w'))
        assert status == 2 and f'uniformer-mm reproduce: {said}' in text


@pytest.mark.parametrize('text', [None, '{"a": ', '{"a": 1000}'])
def test_classes_files_are_read_as_by_verify(tmp_path, text):
    """One reader for both; here it is asked by ``reproduce``."""
    (tmp_path / 'imagenet/val/a').mkdir(parents=True)
    (tmp_path / 'imagenet/val/a/x.png').touch()
    path = tmp_path / 'ids.json'
    if text is not None:
        path.write_text(text)
    said = []
    options = {'reproduce': ['--weights', 'w.pth', '--work-dir', str(tmp_path / 'w')], 'verify': []}
    for name in options:
        data = tmp_path / ('imagenet/val' if name == 'verify' else '')
        status, output = command(
            name, 'cls/s', *options[name], '--data', str(data), '--classes', str(path)
        )
        assert status == 2
        said.append(output[output.index(f"--classes='{path}'") :])
    assert said[0] == said[1]


@pytest.fixture
def pretended(photos, tmp_path, monkeypatch):
    """Pretend tests of lists of the published length with a result for each, and run them."""
    torch.save({}, tmp_path / 'w.pth')

    def go(row: str, *top1: float, files: int = 50_000, words=()) -> tuple[int, str]:
        waiting = list(top1)

        def run_test(folder: Path, gpus: int, advance) -> dict:
            facts = {'list_sha256': '0' * 64, 'listed': files, 'listed_files': files,
                     'files': files, 'samples': files, 'missing': 0}  # fmt: skip
            return {
                'metrics': {'accuracy/top1': waiting.pop(0)}, 'data': facts, 'classes': [],
                'weights': {'path': 'w.pth', 'sha256': '1' * 64, 'class_order': ''},
            }  # fmt: skip

        monkeypatch.setattr(reproduce_module, 'run_test', run_test)
        result = command(
            'reproduce', row, '--weights', str(tmp_path / 'w.pth'), '--data', str(photos),
            '--work-dir', str(tmp_path / 'w'), *words,
        )  # fmt: skip
        assert not waiting
        return result

    return go


def test_the_exit_status_is_the_verdict(pretended):
    status, text = pretended('cls/s', 82.8)
    assert status == 0 and 'verdict top1 within 0.15 points of the published result' in text
    status, text = pretended('cls/s', 82.7)
    assert status == 1 and 'verdict top1 OUTSIDE 0.15 points of the published result' in text
    status, text = pretended('cls/s', 82.7, files=47_000)
    assert status == 0 and 'no verdict: a list of 47,000 files' in text
    # Folders of other classes than all of them are another test, whatever their number.
    status, text = pretended('cls/s', 60.0, words=('--classes', 'some.json'))
    assert status == 0 and 'no verdict: no published number was measured this way' in text


@pytest.mark.parametrize(
    ('both', 'files', 'status'),
    [
        ((83.4, 60.0), 50_000, 0),
        ((60.0, 83.4), 50_000, 0),
        ((60.0, 61.0), 50_000, 1),
        ((60.0, 61.0), 100, 0),
    ],
)
def test_one_of_two_normalisations_suffices(pretended, tmp_path, both, files, status):
    found, text = pretended('cls_tl/s_224', *both, files=files)
    assert found == status
    for top1 in both:
        assert f'top1 83.4 {top1:.2f} {top1 - 83.4:+.2f}' in text
    closer = f'{max(both):.2f}' if files == 50_000 else f'{max(both):.1f}, n 100'
    text = command('results', str(tmp_path / 'w'), '--measured')[1]
    assert f'cls_tl/s_224 83.4 {closer}' in text


def test_light_networks_are_tested_at_their_size_by_the_pooled_map(photos, tmp_path, in_process):
    pytest.importorskip('mmpretrain')
    network = random_weights('xxs', tmp_path / 'xxs.pth')
    status, _ = command(
        'reproduce', 'cls/xxs_160', '--data', str(photos), '--weights', str(tmp_path / 'xxs.pth'),
        '--gpus', '0', '--workers', '0', '--batch-size', '2', '--work-dir', str(tmp_path / 'w'),
    )  # fmt: skip
    assert status == 0
    stored = PredictionStore(tmp_path / 'w/cls-xxs_160/official').read()
    for sample, label in zip(stored, LABELS, strict=True):
        # int(256 / 224 * 160) = 182 pixels, of which the 160 in the middle are seen.
        photo = Image.open(sample.path).convert('RGB').resize((182, 182), Image.Resampling.BICUBIC)
        mean, std = IMAGENET
        normal = (np.asarray(photo)[11:-11, 11:-11] / 255.0 - mean) / std
        with torch.no_grad():
            logits = network(torch.from_numpy(normal).float().permute(2, 0, 1)[None])[0]
        scores = sample.results[0]['pred_score']
        assert torch.allclose(scores, logits.softmax(0), atol=1e-6)
        assert scores.std() > 1e-5
        assert sample.results[0]['gt_label'].tolist() == [label]


def test_token_labelling_is_measured_with_both_normalisations(photos, tmp_path, in_process):
    pytest.importorskip('mmpretrain')
    network = random_weights('small_tl', tmp_path / 'tl.pth')
    status, text = command(
        'reproduce', 'cls_tl/s_224', '--data', str(photos), '--weights', str(tmp_path / 'tl.pth'),
        '--gpus', '0', '--workers', '0', '--batch-size', '3', '--work-dir', str(tmp_path / 'w'),
    )  # fmt: skip
    assert status == 0
    folders = [tmp_path / 'w/cls_tl-s_224' / f'uniformer_s_tl_224{end}' for end in ('', '_mean05')]
    records = [read_record(folder / 'record.json') for folder in folders]
    assert len({record.config_sha256 for record in records}) == 2
    assert len({record.list_sha256 for record in records}) == 1
    edge = (SIDE - 224) // 2
    for folder, record, (mean, std) in zip(folders, records, (IMAGENET, HALF), strict=True):
        assert record.protocol == {'variant': folder.name}
        assert f'cls_tl/s_224 (variant {folder.name})' in text
        for stored, label in zip(PredictionStore(folder).read(), LABELS, strict=True):
            photo = cv2.imread(stored.path)[edge:-edge, edge:-edge, ::-1]
            normal = (photo / 255.0 - mean) / std
            with torch.no_grad():
                logits = network(torch.from_numpy(normal).float().permute(2, 0, 1)[None])[0]
            scores = stored.results[0]['pred_score']
            assert torch.allclose(scores, logits.softmax(0), atol=1e-6)
            assert scores.std() > 1e-5  # far more than the tolerance
            assert stored.results[0]['gt_label'].tolist() == [label]
