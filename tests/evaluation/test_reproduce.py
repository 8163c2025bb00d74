# SPDX-License-Identifier: Apache-2.0
"""From the command line to a record: the toolbox's numbers, resumed, on subsets, and refusals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from rich.console import Console

from uniformer_mm.cli import main
from uniformer_mm.evaluation import PredictionStore, worker
from uniformer_mm.evaluation import reproduce as reproduce_module
from uniformer_mm.evaluation.data_lists import list_order
from uniformer_mm.evaluation.protocol import Choices, data_root
from uniformer_mm.evaluation.record import Record, read_record
from uniformer_mm.evaluation.reproduce import reproduce
from uniformer_mm.evaluation.reproduce import tests_of as find_tests
from uniformer_mm.evaluation.tables import print_results
from uniformer_mm.labels import class_names
from uniformer_mm.synth import make_data

from ..conftest import ROOT
from .helpers import enter

QUICKSTARTS = {
    'video': 'configs/video/quickstart_kinetics.py',
    'seg': 'configs/seg/quickstart.py',
    'det': 'configs/det/quickstart.py',
    'pose': 'configs/pose/quickstart.py',
    'cls': 'configs/cls/quickstart.py',
}
PLAIN = {'batch_size': 2, 'workers': 0}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('synthetic') / 'data'
    make_data(root, size='tiny', tasks=('video', 'seg', 'det', 'pose', 'cls'))
    return root


@pytest.fixture(scope='module')
def weights(data, tmp_path_factory):
    """Random weights of a quickstart's model, made once for each task."""
    folder = tmp_path_factory.mktemp('weights')

    def make(task: str) -> Path:
        path = folder / f'{task}.pth'
        if not path.exists():
            enter(task)
            with data_root(data):
                config = Config.fromfile(ROOT / QUICKSTARTS[task])
            config.model.backbone.pop('init_cfg', None)
            torch.manual_seed(0)
            torch.save({'state_dict': MODELS.build(config.model).state_dict()}, path)
        return path

    return make


@pytest.fixture
def in_process(monkeypatch):
    """Run the worker here instead of in a process of its own, which costs an import each."""

    def run_test(folder: Path, gpus: int, advance) -> dict:
        return worker.run(folder)

    monkeypatch.setattr(reproduce_module, 'run_test', run_test)


def measure(task: str, data: Path, weights, work: Path, **choices) -> tuple[Path, Record]:
    (test,) = find_tests(str(ROOT / QUICKSTARTS[task]))
    enter(task)
    return reproduce(
        test,
        Choices(data=data, **PLAIN | choices),
        lambda done, total: None,
        weights=str(weights(task)),
        gpus=0,
        work_dir=work,
    )


def stock_metrics(task: str, data: Path, weights: Path, work: Path) -> dict[str, float]:
    """The toolbox's own test of the same config."""
    enter(task)
    with data_root(data):
        config = Config.fromfile(ROOT / QUICKSTARTS[task])
    config.merge_from_dict({
        'work_dir': str(work), 'load_from': str(weights),
        'test_dataloader.batch_size': 2, 'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
    })  # fmt: skip
    config.test_cfg = {'type': 'TestLoop'} if 'test_cfg' not in config else config.test_cfg
    return Runner.from_cfg(config).test()


SAME = {
    'video': {'top1': ('acc/top1', 100), 'top5': ('acc/top5', 100), 'mean1': ('acc/mean1', 100)},
    'seg': {'mIoU': ('mIoU', 1), 'aAcc': ('aAcc', 1), 'mAcc': ('mAcc', 1)},
    'det': {'bbox_mAP': ('coco/bbox_mAP', 100), 'segm_mAP': ('coco/segm_mAP', 100)},
    'pose': {'AP': ('coco/AP', 100), 'AR': ('coco/AR', 100)},
    'cls': {'top1': ('accuracy/top1', 1), 'top5': ('accuracy/top5', 1)},
}


@pytest.mark.parametrize('task', list(QUICKSTARTS))
def test_the_numbers_are_the_toolboxs(task, data, weights, tmp_path, in_process):
    pytest.importorskip(worker._PACKAGES[task])
    folder, record = measure(task, data, weights, tmp_path / 'ours')
    stock = stock_metrics(task, data, weights(task), tmp_path / 'stock')
    for name, (key, factor) in SAME[task].items():
        assert record.metrics[name] == round(float(stock[key]) * factor, 4)
    assert record == read_record(folder / 'record.json')
    assert record.samples == len(list(PredictionStore(folder).read())) == record.listed
    assert record.agrees is None and record.published == {}
    assert record.versions['torch'] == torch.__version__.partition('+')[0]


def test_a_subset_has_an_interval_and_only_its_own_truth(data, weights, tmp_path, in_process):
    pytest.importorskip('mmdet')
    _, record = measure('det', data, weights, tmp_path, limit=3)
    assert (record.limit, record.files, record.samples) == (3, 3, 3)
    assert set(record.intervals) == {'bbox_mAP', 'segm_mAP'}
    assert 'bootstrap over images' in record.interval_method
    low, high = record.intervals['bbox_mAP']
    assert 0 <= low <= record.metrics['bbox_mAP'] + 0.05 and low <= high
    truth = json.loads((data / 'coco/annotations/instances_val2017.json').read_text())
    assert record.listed == len(truth['images']) > 3
    (stored,) = tmp_path.rglob('predictions.bbox.json')
    tested = {item['image_id'] for item in json.loads(stored.read_text())}
    assert len(tested) <= 3


def test_missing_videos_are_counted_and_listed_labels_checked(
    data, weights, tmp_path, in_process
):  # fmt: skip
    pytest.importorskip('mmaction')
    copy = tmp_path / 'data'
    source = data / 'kinetics400'
    (copy / 'kinetics400').mkdir(parents=True)
    (copy / 'kinetics400/videos_val').symlink_to(source / 'videos_val')
    listed = (source / 'kinetics400_val_list_videos.txt').read_text().splitlines()
    target = copy / 'kinetics400/kinetics400_val_list_videos.txt'
    target.write_text('\n'.join([*listed, 'rising/gone.mp4 4']) + '\n')
    _, record = measure('video', copy, weights, tmp_path / 'w')
    assert (record.missing, record.files) == (1, len(listed))
    assert record.notes == ['1 of the listed files are missing and were left out']
    target.write_text('\n'.join([*listed[1:], listed[0].split()[0] + ' 8']) + '\n')
    with pytest.raises(ValueError, match='labels from 1 to 8, the model 8 classes'):
        measure('video', copy, weights, tmp_path / 'w2')
    target.write_text('nowhere/a.mp4 0\n')
    with pytest.raises(ValueError, match=r'none of the 1 listed files is there.*nowhere/a.mp4'):
        measure('video', copy, weights, tmp_path / 'w3')
    target.unlink()
    with pytest.raises(ValueError, match=r'list_videos\.txt is not there, which lists'):
        measure('video', copy, weights, tmp_path / 'w4')


def test_missing_photos_are_refused(data, weights, tmp_path, in_process):
    pytest.importorskip('mmseg')
    root = data / 'ade/ADEChallengeData2016'
    copy = tmp_path / 'data/ade/ADEChallengeData2016'
    (copy / 'images/validation').mkdir(parents=True)
    (copy / 'annotations').symlink_to(root / 'annotations')
    with pytest.raises(ValueError, match=r'images/validation is not there or empty; check --data'):
        measure('seg', tmp_path / 'data', weights, tmp_path / 'w')
    with pytest.raises(ValueError, match=r'data=.*is no folder'):
        measure('seg', tmp_path / 'absent', weights, tmp_path / 'w')


def test_weights_of_another_model(data, weights, tmp_path, in_process):
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match=r'does not fill the model.*decode_head|neck|head'):
        measure('det', data, lambda task: weights('seg'), tmp_path)
    state = torch.load(weights('cls'), weights_only=True)['state_dict']
    state['head.fc.weight'], state['head.fc.bias'] = torch.zeros(5, 256), torch.zeros(5)
    torch.save({'state_dict': state}, tmp_path / 'five.pth')
    with pytest.raises(ValueError, match=r'head.fc.weight \(5, 256\) instead of \(9, 256\)'):
        measure('cls', data, lambda task: tmp_path / 'five.pth', tmp_path)


def test_an_interrupted_run_goes_on_and_gives_the_same_numbers(
    data, weights, tmp_path, in_process
):  # fmt: skip
    pytest.importorskip('mmpretrain')
    folder, whole = measure('cls', data, weights, tmp_path / 'whole', batch_size=1)
    # The same test in a process that is killed as soon as it has finished some samples.
    target = tmp_path / 'cut' / 'quickstart' / 'official'
    target.mkdir(parents=True)
    for name in (worker.CONFIG, worker.SPEC):
        text = (folder / name).read_text().replace(str(folder), str(target))
        (target / name).write_text(text)
    process = subprocess.Popen(
        [sys.executable, '-m', 'uniformer_mm.evaluation.worker', str(target)],
        env=os.environ | {'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith('@progress') and json.loads(line[10:])['done'] >= 3:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    finished = PredictionStore(target).finished()
    assert 3 <= len(finished) < whole.samples
    times = {s.position: s.seconds for s in PredictionStore(target).read()}
    _, resumed = measure('cls', data, weights, tmp_path / 'cut', batch_size=1)
    assert resumed.metrics == whole.metrics
    after = {s.position: s.seconds for s in PredictionStore(target).read()}
    assert len(after) == whole.samples
    # Nothing was tested twice.
    assert all(after[position] == seconds for position, seconds in times.items())


def test_processes_share_the_samples(data, weights, tmp_path, in_process, monkeypatch):
    pytest.importorskip('mmpretrain')
    folder, whole = measure('cls', data, weights, tmp_path / 'one')
    target = tmp_path / 'two'
    target.mkdir()
    for name in (worker.CONFIG, worker.SPEC):
        text = (folder / name).read_text().replace(str(folder), str(target))
        (target / name).write_text(text)
    # As torchrun would start them, one after the other.
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        assert worker.run(target, collect=True)['metrics'] == {}
    stores = sorted(target.glob('predictions.*.sqlite'))
    assert [path.name for path in stores] == ['predictions.0.sqlite', 'predictions.1.sqlite']
    # The second found half of the work done and still did its own half.
    assert len(PredictionStore(target).finished()) == whole.samples
    monkeypatch.delenv('WORLD_SIZE')
    monkeypatch.delenv('RANK')
    # Records round to four decimals.
    accuracy = worker.run(target)['metrics']['accuracy/top1']
    assert round(accuracy, 4) == whole.metrics['top1']


def command(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        status = main(list(words))
    return status, ' '.join(out.getvalue().split())


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['vid/k400_s_16x5'], r"is no recipe; did you mean one of \['vid/k400_s_16x"),
        (['cls/xxs_128'], 'has no config: its arch'),
        (['det/mask_rcnn_xs_1x'], 'has no config: its arch'),
        (['seg/fpn_s_h14'], 'were never released .* --weights FILE'),
        (['seg/upernet_s_h14', '--attention', 'h32'], "no published test with attention='h32'"),
        (['cls/s', '--limit', '0'], 'limit=0 must be at least 1'),
        (['cls/s', '--gpus', '99'], 'gpus=99, but this machine has'),
        (['cls/s', '--weights', 'x.pth', '--data', '/nonexistent'], 'is no folder; name the root'),
    ],
)
def test_requests_that_cannot_be_met(words, message, tmp_path):
    status, text = command('reproduce', *words, '--work-dir', str(tmp_path / 'w'))
    assert status == 2
    assert re.search(message, text), text


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    status, text = command(
        'reproduce', 'cls/s', '--weights', 'x.pth', '--data', str(tmp_path),
        '--work-dir', str(tmp_path / 'file'),
    )  # fmt: skip
    assert status == 2
    assert 'cannot be made (Not a directory); choose another' in text


def test_empty_imagenet_and_folders_of_other_classes(tmp_path):
    work = ['--weights', 'x.pth', '--data', str(tmp_path), '--work-dir', str(tmp_path / 'w')]
    (tmp_path / 'imagenet').mkdir()
    status, text = command('reproduce', 'cls/s', *work)
    assert status == 2 and 'has no class folders' in text
    (tmp_path / 'imagenet/val/n01440764').mkdir(parents=True)
    status, text = command('reproduce', 'cls/s', *work)
    assert status == 2 and 'data has 1 class folders, the row 1000 classes' in text
    (tmp_path / 'classes.json').write_text('{"n01440764": 0}')
    status, text = command('reproduce', 'cls/s', *work, '--classes', str(tmp_path / 'classes.json'))
    assert status == 2 and 'hold no images' in text


def kinetics_list(tmp_path: Path, order: str, spoil: bool = False) -> Config:
    names = class_names(f'kinetics400_{order}')
    lines = [f'{name.replace(" ", "_")}/{i}.mp4 {i}' for i, name in enumerate(names[:20])]
    if spoil:
        lines[3] = f'{names[3].replace(" ", "_")}/3.mp4 399'
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    return Config({'test_dataloader': {'dataset': {'ann_file': str(tmp_path / 'list.txt')}}})


def test_the_list_says_how_it_numbers_the_classes(tmp_path):
    for order in ('official', 'alphabetical'):
        config = kinetics_list(tmp_path, order)
        assert list_order(config, 'kinetics400', None) == f'kinetics400_{order}'
        assert list_order(config, 'kinetics400', order) == f'kinetics400_{order}'
    with pytest.raises(ValueError, match=r"class_order='official', but .* in the alphabetical"):
        list_order(config, 'kinetics400', 'official')
    with pytest.raises(ValueError, match='in neither order of kinetics400'):
        list_order(kinetics_list(tmp_path, 'official', spoil=True), 'kinetics400', None)
    with pytest.raises(ValueError, match='ssv2 has one order of classes'):
        list_order(config, 'ssv2', 'official')
    (tmp_path / 'list.txt').write_text('abc.mp4 3\n')
    assert list_order(config, 'kinetics400', None) == 'kinetics400_alphabetical'
    assert list_order(config, 'kinetics400', 'official') == 'kinetics400_official'


def record_of(row: str, **changes) -> Record:
    recipe = find_tests(row)[0].recipe
    facts = dict(
        row=row, task=recipe.task, config=recipe.config, protocol={}, metrics=dict(recipe.metrics),
        published=dict(recipe.metrics), intervals={}, interval_method='', listed=100, samples=100,
        files=100, missing=0, limit=None, seed=0, weights='w.pth', weights_sha256='0' * 64,
        class_order='', config_sha256='1' * 64, list_sha256='2' * 64, device='CPU',
        date='2026-01-01T00:00:00+00:00',
    )  # fmt: skip
    return Record(**facts | changes)


@pytest.mark.parametrize(
    ('changes', 'agrees'),
    [
        ({'metrics': {'top1': 80.5}}, True),
        ({'metrics': {'top1': 81.1}}, True),
        ({'metrics': {'top1': 80.49}}, False),
        ({'metrics': {'top1': 81.11}}, False),
        ({'limit': 50}, None),
        ({'missing': 5}, True),
        ({'missing': 6}, None),
        ({'published': {}}, None),
    ],
)
def test_verdicts(changes, agrees):
    assert record_of('vid/k400_s_16x4', **changes).agrees is agrees


def test_all_rows_as_tables(tmp_path):
    whole = record_of('vid/k400_s_16x4', metrics={'top1': 80.71})
    later_subset = record_of(
        'vid/k400_s_16x4', metrics={'top1': 60.0}, limit=5, date='2026-02-01T00:00:00+00:00'
    )
    subset = record_of('seg/upernet_s_g', metrics={'mIoU': 44.0}, published={'mIoU': 47.6},
                       intervals={'mIoU': (40.0, 49.0)}, limit=100)  # fmt: skip
    scales = record_of('seg/upernet_s_g', metrics={'mIoU_ms': 48.41}, published={'mIoU_ms': 48.5})
    console = Console(width=160, record=True, file=io.StringIO())
    records = [(tmp_path, r) for r in (whole, later_subset, subset, scales)]
    print_results(console, records)
    text = console.export_text()
    lines = {line.split()[0]: line.split() for line in text.splitlines() if '/' in line}
    assert lines['vid/k400_s_16x4'][1:3] == ['80.8', '80.71']
    row = ' '.join(lines['seg/upernet_s_g'])
    assert '47.6 44.0 [40.0, 49.0], n 100 48.5 48.41' in row
    assert ' '.join(lines['cls/s'][1:]) == '82.9 not run'
    assert len(lines) == 95


def test_records_are_whole_or_not_there(tmp_path):
    with pytest.raises(ValueError, match='holds no finished test'):
        read_record(tmp_path / 'record.json')
    (tmp_path / 'record.json').write_text('{"row": ')
    with pytest.raises(ValueError, match='cannot be read'):
        read_record(tmp_path / 'record.json')
    (tmp_path / 'record.json').write_text('{"row": 3}')
    with pytest.raises(ValueError, match='no record of this version'):
        read_record(tmp_path / 'record.json')


def test_ctrl_c_says_how_to_go_on(data, tmp_path, monkeypatch):
    weights = tmp_path / 'w.pth'
    torch.save({'state_dict': {'x': torch.zeros(1)}}, weights)

    def interrupted(folder: Path, gpus: int, advance) -> dict:
        advance(1, 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce_module, 'run_test', interrupted)
    status, text = command(
        'reproduce', str(ROOT / QUICKSTARTS['seg']), '--weights', str(weights),
        '--data', str(data), '--work-dir', str(tmp_path / 'w'),
    )  # fmt: skip
    assert status == 130
    assert 'interrupted; the same command goes on where it stopped.' in text
    assert not list(tmp_path.rglob('record.json'))


def test_a_process_that_dies_leaves_its_last_words(tmp_path):
    from uniformer_mm.evaluation.launch import TestFailedError, run_test

    # Neither configuration nor specification: the worker ends with a traceback.
    with pytest.raises(TestFailedError, match=r'exit status 1.*run\.log.*goes on'):
        run_test(tmp_path, 0, lambda done, total: None)
    assert 'Traceback' in (tmp_path / 'run.log').read_text()
