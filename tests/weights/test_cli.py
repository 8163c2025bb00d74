# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm zoo | inspect | convert | verify``."""

from __future__ import annotations

import pytest
import torch

from uniformer_mm.cli import main
from uniformer_mm.evaluation import cli
from uniformer_mm.evaluation.verify import IMAGENET, Measurement
from uniformer_mm.weights import zoo
from uniformer_mm.weights.inspect import HEAD_DIM_UNKNOWN, inspect_file

from .helpers import TINY, cheap_file, classifier_state, equal, save


@pytest.fixture
def run(capsys):
    """Run a command; hand back its status and what it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out + err

    return call


def test_list(run):
    status, text = run('zoo')
    assert status == 0
    assert text.splitlines()[-1].strip() == f'{len(zoo.rows())} rows'
    listed = [line.split()[0] for line in text.splitlines()[1:-1] if line.strip()]
    assert listed == [row.id for row in zoo.rows()]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--task', 'det'], lambda r: r.id.startswith('det/')),
        (['--task', 'cls'], lambda r: r.id.startswith(('cls', 'om/'))),
        (['--task', 'video', '--arch', 'base'], lambda r: r.ndim == 3 and r.arch == 'base'),
        (['--not-released'], lambda r: not r.released),
        (['--dataset', 'kinetics600', '--released'], lambda r: r.dataset == 'kinetics600'),
    ],
)  # fmt: skip
def test_filters(run, options, expected):
    status, text = run('zoo', *options)
    wanted = [row.id for row in zoo.rows() if expected(row)]
    assert wanted and status == 0
    assert [line.split()[0] for line in text.splitlines()[1:-1] if line.strip()] == wanted


def test_show(run):
    status, text = run('zoo', 'show', 'uniformer://small_k400_16x4')
    assert status == 0
    for part in (
        'vid/k400_s_16x4', 'head_dim', 'kinetics400_official', '0.45 0.45 0.45', 'top1 80.8',
        'https://drive.google.com/file/d/1-jGZIIuTM5IYIpqkNTojhGhfMc7Gu9Kt', 'sha256 c630a037',
        'code Apache-2.0', '16 frames x 4', 'model_state or flat',
    ):  # fmt: skip
        assert part in text
    status, text = run('zoo', 'show', 'fpn_hybrid_small')
    assert status == 0 and 'not released' in text


def test_mistakes_are_one_line(run, tmp_path):
    status, text = run('zoo', 'show', 'smal_in1k')
    assert status == 2
    assert "did you mean one of ['small_in1k'" in text
    assert 'Traceback' not in text
    status, text = run('inspect', tmp_path / 'absent.pth')
    assert status == 2 and 'no such file' in text


def test_fetch(run, tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    path = cheap_file(tmp_path / 'uniformer_small_in1k.pth', 'small')
    status, text = run('zoo', 'fetch', 'small_in1k')
    assert status == 0 and str(path) in text


def test_inspect_a_file_from_elsewhere(run, tmp_path):
    path = cheap_file(tmp_path / 'w.pth', 'small_plus')
    facts = dict(inspect_file(path))
    assert facts['arch by its shapes'] == 'small_plus or small_plus_dim64'
    assert facts['head_dim'] == f'{HEAD_DIM_UNKNOWN}; released files of these shapes have 32 or 64'
    assert facts['container'] == 'model'
    assert facts['made for'] == 'classifier of 1000 classes'
    assert facts['zoo'] == 'not a known file (its hash is in no row)'
    assert facts['normalisation'].startswith('not known')
    status, text = run('inspect', path)
    assert status == 0
    for name, value in facts.items():
        assert name in text and value in text


def test_inspect_known_files(tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    content = torch.load(
        cheap_file(tmp_path / 'x.pth', 'small', ndim=3, classes=400), weights_only=True
    )
    save(
        tmp_path / 'uniformer_small_k400_16x4.pth', {'model_state': content['model'], 'epoch': 110}
    )
    facts = dict(inspect_file('uniformer://small_k400_16x4'))
    assert facts['head_dim'] == '64 (zoo row vid/k400_s_16x4)'
    assert facts['class order'] == 'kinetics400_official (zoo row vid/k400_s_16x4)'
    assert facts['zoo'] == 'vid/k400_s_16x4, known by its name'
    assert facts['normalisation'] == '0.45 0.45 0.45 / 0.225 0.225 0.225'
    assert (facts['rank'], facts['patch_kernel_t'], facts['epoch']) == ('3-D (clips)', '1', '110')


def test_inspect_unknown_order_and_token_labels(tmp_path):
    facts = dict(inspect_file(cheap_file(tmp_path / 'k.pth', 'small', ndim=3, classes=400)))
    assert facts['class order'].startswith('not known: rows of a linear layer carry no names')
    facts = dict(inspect_file(cheap_file(tmp_path / 't.pth', 'small_tl')))
    assert facts['head_dim'].startswith('32 or 64 (aux_head keys: token labelling, small_tl')


def test_convert_there_and_back(run, tmp_path):
    state = classifier_state(ndim=3, classes=400)
    path = save(tmp_path / 'w.pth', {'model_state': state})
    order = ('--class-order', 'kinetics400_official', '--permute', 'kinetics400_alphabetical')
    status, text = run('convert', path, '--to', 'mmaction2', *order, '--output', tmp_path / 'm.pth')
    assert status == 0 and 'kinetics400_alphabetical' in text
    assert 'mmaction2 differs  LayerNorm eps 1e-5 in blocks' in text
    status, _ = run(
        'convert', tmp_path / 'm.pth', '--to', 'official', '--output', tmp_path / 'b.pth'
    )
    assert status == 0
    assert equal(torch.load(tmp_path / 'b.pth', weights_only=True)['model_state'], state)
    status, text = run('convert', path, '--to', 'mmaction2', '--output', tmp_path / 'm.pth')
    assert status == 2 and 'exists' in text
    assert TINY['head_dim'] == 32


def test_an_output_that_cannot_be_written(run, tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    for output, words in (
        ('/nonexistent/x.pth', ': there is no folder /nonexistent; make it or name another'),
        (tmp_path, ' is a folder; name a file'),
        ('/proc/x.pth', ': cannot be written (No such file or directory); name another'),
    ):
        status, text = run('convert', path, '--to', 'official', '--output', output)
        assert status == 2 and f"--output='{output}'{words}" in text
    assert [p.name for p in tmp_path.iterdir()] == ['w.pth']


def test_averaged_weights_only(run, tmp_path):
    path = save(tmp_path / 'ema.pth', {'model_ema': classifier_state()})
    status, text = run('inspect', path)
    assert status == 2 and 'pass --ema to use them' in text
    assert run('convert', path, '--to', 'official', '--ema')[0] == 0
    assert run('inspect', tmp_path / 'ema_official.pth')[0] == 0


def test_no_file_name(run):
    status, text = run('inspect', '')
    assert status == 2 and "checkpoint='' names no file" in text


@pytest.mark.parametrize(
    ('top1', 'images', 'status', 'verdict'),
    [
        (82.9, 50_000, 0, 'top1 within 0.15 points of the published result'),
        (82.9, 47_600, 0, 'top1 within 0.15 points of the published result'),
        (68.4, 50_000, 1, 'top1 OUTSIDE 0.15 points of the published result'),
        (83.1, 50_000, 1, 'top1 OUTSIDE 0.15 points of the published result'),
        (10.0, 300, 0, 'no verdict: not the whole validation set'),
    ],
)
def test_verify_verdicts(run, monkeypatch, top1, images, status, verdict):
    result = Measurement('cls/s', IMAGENET, top1, 96.0, images, 82.9)
    monkeypatch.setattr(cli, 'verify_row', lambda *_, **__: [result])
    code, text = run('verify', 'cls/s', '--data', 'val')
    assert code == status
    assert f'{top1:.2f} (top-5 96.00, {images:,} images, ImageNet mean/std)' in text
    assert text.splitlines()[-1].split(maxsplit=1)[1] == verdict
