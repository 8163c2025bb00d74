# SPDX-License-Identifier: Apache-2.0
"""From a config and weights to the leaderboard file, on real images and clips, in each toolbox."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from PIL import Image

from uniformer_mm.evaluation.running import worker
from uniformer_mm.evaluation.running.reproduce import tests_of as rows_tests
from uniformer_mm.submission import predict as runs
from uniformer_mm.submission.ade20k.label_maps import LabelMaps
from uniformer_mm.submission.predict import Request, submission_config
from uniformer_mm.submission.video.kinetics import label_names
from uniformer_mm.submission.video.predictions import read_video_scores

from ..conftest import ROOT, shared_dir
from ..toolboxes.mim import run_mim

CONFIGS = ROOT / 'configs'
PACKAGES = {'det': 'mmdet', 'seg': 'mmseg', 'pose': 'mmpose', 'video': 'mmaction',
            'kinetics600': 'mmaction', 'ssv2': 'mmaction'}  # fmt: skip
# The quickstarts' networks with the benchmarks' classes.
SMALL = {
    'det': """
_base_ = 'ROOT/det/quickstart.py'
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=80), mask_head=dict(num_classes=80)),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=10)),
)
test_dataloader = dict(dataset=dict(metainfo=None))
""",
    'seg': """
_base_ = 'ROOT/seg/quickstart.py'
model = dict(decode_head=dict(num_classes=150))
test_dataloader = dict(dataset=dict(metainfo=None))
""",
    'pose': """
_base_ = 'ROOT/pose/quickstart.py'
""",
    'video': """
_base_ = 'ROOT/video/quickstart_kinetics.py'
model = dict(cls_head=dict(num_classes=400))
""",
    'kinetics600': """
_base_ = 'ROOT/video/quickstart_kinetics.py'
model = dict(cls_head=dict(num_classes=600))
""",
    'ssv2': """
_base_ = 'ROOT/video/quickstart_ssv2.py'
model = dict(cls_head=dict(num_classes=174))
""",
}
LOADER = {'test_dataloader.num_workers': 0, 'test_dataloader.batch_size': 1}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A config with a small network, and random weights for it.

    Tests run in this process: what is tested is not the starting of another one.
    """

    def make(task: str) -> tuple[Path, Path]:
        path = tmp_path / f'small_{task}.py'
        path.write_text(SMALL[task].replace('ROOT', str(CONFIGS)))
        import_module(f'{PACKAGES[task]}.utils').register_all_modules(False)
        config = Config.fromfile(path)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(PACKAGES[task]):
            model = MODELS.build(config.model)
        weights = tmp_path / f'small_{task}.pth'
        torch.save({'state_dict': model.state_dict()}, weights)
        return path, weights

    def run_here(folder: Path, gpus: int, advance) -> dict:
        return worker.run(folder)

    monkeypatch.setattr(runs, 'run_test', run_here)
    return make


def submit(run, task: str, made: tuple[Path, Path], tmp_path: Path, *options: object):
    config, weights = made
    loader = [f'{key}={value}' for key, value in LOADER.items()]
    return run(
        'submit', task, '--config', config, '--weights', weights, '--data', tmp_path / 'data',
        '--name', 'Small', '--output', tmp_path / 'out', '--work-dir', tmp_path / 'work',
        '--gpus', 0, *options, '--cfg-options', *loader,
    )  # fmt: skip


def image_info(annotations: Path, folder: Path, count: int) -> Path:
    """A list of test images: what COCO publishes for test-dev, without annotations."""
    content = json.loads(annotations.read_text())
    content['images'] = content['images'][:count]
    del content['annotations']
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'image_info_test-dev2017.json'
    path.write_text(json.dumps(content))
    return path


def test_boxes_and_masks(run, small, instances, tmp_path):
    ids = image_info(instances, tmp_path / 'data/coco/annotations', 2)
    (tmp_path / 'data/coco/test2017').symlink_to(instances.parents[1] / 'val2017')
    made = small('det')
    for task in ('coco-det', 'coco-segm'):
        status, text = submit(run, task, made, tmp_path, '--ids', ids, '--overwrite')
        assert status == 0, text
        target = tmp_path / 'out/detections_test-dev2017_Small_results.zip'
        status, text = run('submit', '--check', target, '--ids', ids)
        assert status == 0 and f'({task}): nothing wrong was found' in text
    # The masks came from the test that had written the boxes: nothing was tested twice.
    folder = tmp_path / 'work/coco_test_dev-small_det'
    assert [path.name for path in (tmp_path / 'work').iterdir()] == [folder.name]


def test_a_detector_that_finds_nothing(run, small, instances, tmp_path):
    ids = image_info(instances, tmp_path / 'data/coco/annotations', 1)
    (tmp_path / 'data/coco/test2017').symlink_to(instances.parents[1] / 'val2017')
    config, weights = small('det')
    config.write_text(config.read_text().replace('score_thr=0.0', 'score_thr=1.1'))
    for task in ('coco-det', 'coco-segm'):
        status, text = submit(run, task, (config, weights), tmp_path, '--ids', ids)
        assert status == 2 and 'empty (1): no results at all. Nothing was written.' in text
    assert not list((tmp_path / 'out').iterdir())


def test_keypoints(run, small, persons, tmp_path):
    ids = image_info(persons, tmp_path / 'data/coco/annotations', 2)
    (tmp_path / 'data/coco/test2017').symlink_to(persons.parents[1] / 'val2017')
    images = {image['id'] for image in json.loads(ids.read_text())['images']}
    boxes = [
        {'image_id': i['image_id'], 'bbox': i['bbox'], 'score': 0.9, 'category_id': 1}
        for i in json.loads(persons.read_text())['annotations']
        if i['image_id'] in images
    ]
    made = small('pose')
    status, text = submit(run, 'coco-keypoints', made, tmp_path, '--ids', ids)
    assert status == 2 and '609_person.json is not there; name the person detections' in text
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    status, text = submit(
        run, 'coco-keypoints', made, tmp_path, '--ids', ids, '--boxes', tmp_path / 'boxes.json'
    )
    assert status == 0, text
    target = tmp_path / 'out/person_keypoints_test-dev2017_Small_results.zip'
    assert run('submit', '--check', target, '--ids', ids)[0] == 0


def test_label_maps(run, small, ade, tmp_path, monkeypatch):
    images = tmp_path / 'testing'
    images.mkdir()
    (tmp_path / 'data').mkdir()
    for number, path in enumerate(sorted((ade / 'images/validation').iterdir())[:2], 1):
        Image.open(path).reduce(4).save(images / f'ADE_test_{number:08}.jpg')
    made = small('seg')
    process, seen = LabelMaps.process, []

    def interrupted(self, data_batch, data_samples):
        if len(seen) == 1:
            seen.append('interruption')
            raise KeyboardInterrupt
        seen.append(Path(data_samples[0]['img_path']).stem)
        process(self, data_batch, data_samples)

    monkeypatch.setattr(LabelMaps, 'process', interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(run, 'ade20k', made, tmp_path, '--ids', images)
    assert not list((tmp_path / 'out').iterdir())
    status, text = submit(run, 'ade20k', made, tmp_path, '--ids', images)
    assert status == 0, text
    assert seen == ['ADE_test_00000001', 'interruption', 'ADE_test_00000002']
    status, text = run(
        'submit', '--check', tmp_path / 'out/ade20k_Small_results.zip', '--ids', images
    )
    assert status == 0, text
    # The class indices that mmseg's own metric writes for the same predictions, but raised by one.
    config = Config.fromfile(tmp_path / 'work/ade20k_test-small_seg/test.py')
    config.test_evaluator = dict(type='IoUMetric', format_only=True, output_dir=str(tmp_path / 'I'))
    config.test_cfg = dict(type='TestLoop')
    config.load_from, config.work_dir = str(made[1]), str(tmp_path / 'log')
    config.test_dataloader.dataset.reduce_zero_label = False
    Runner.from_cfg(config).test()
    for path in sorted((tmp_path / 'I').iterdir()):
        written = Image.open(tmp_path / 'work/ade20k_test-small_seg/label_maps' / path.name)
        np.testing.assert_array_equal(np.asarray(written), np.asarray(Image.open(path)) + 1)


def test_videos(run, small, tmp_path):
    clips = shared_dir('data', 'clips', 'videos')
    names = ['R6llTwEh07w', 'SOX5yA1l24A']
    root = tmp_path / 'data/kinetics400'
    root.mkdir(parents=True)
    (root / 'videos_test').symlink_to(clips)
    listed = root / 'kinetics400_test_list_videos.txt'
    listed.write_text(''.join(f'{name}.mp4\n' for name in [*names, 'not-on-disk']))
    ids = tmp_path / 'test.csv'
    ids.write_text('\n'.join(['youtube_id,split', *(f'{name},test' for name in names)]))
    made = small('video')
    options = ('--ids', ids, '--external-data', 'none of note')
    status, text = submit(run, 'kinetics', made, tmp_path, *options)
    assert status == 0, text
    assert '1 of the listed files were not there' in text
    target = tmp_path / 'out/kinetics400_Small_results.json'
    assert list(json.loads(target.read_text())['results']) == names
    assert run('submit', '--check', target, '--ids', ids)[0] == 0
    status, text = submit(run, 'ssv2', made, tmp_path, '--ids', ids)
    assert status == 2 and 'small_video has 400 classes; ssv2 needs one with 174' in text


def test_videos_of_kinetics600(run, small, tmp_path):
    root = tmp_path / 'data/kinetics600'
    root.mkdir(parents=True)
    (root / 'videos_test').symlink_to(shared_dir('data', 'clips', 'videos'))
    (root / 'kinetics600_test_list_videos.txt').write_text('R6llTwEh07w.mp4\n')
    ids = tmp_path / 'test.csv'
    ids.write_text('youtube_id,split\nR6llTwEh07w,test\n')
    options = ('--ids', ids, '--no-external-data')
    status, text = submit(run, 'kinetics', small('kinetics600'), tmp_path, *options)
    assert status == 0, text
    assert 'classes in the order kinetics600_alphabetical' in text
    target = tmp_path / 'out/kinetics600_Small_results.json'
    (entries,) = json.loads(target.read_text())['results'].values()
    assert {entry['label'] for entry in entries} <= set(label_names('kinetics600_official'))
    scores = read_video_scores(tmp_path / 'work/kinetics600_test-small_kinetics600/scores.pkl')
    assert scores.scores.shape == (1, 600)
    best = np.argsort(-scores.scores[0])[:5]
    names = label_names('kinetics600_alphabetical')
    assert [entry['label'] for entry in entries] == [names[index] for index in best]
    assert run('submit', '--check', target, '--ids', ids)[0] == 0


def write_ssv2_frames(root: Path) -> list[str]:
    """Frames of three real clips in the layout of Something-Something V2; the videos' ids."""
    lines = []
    clips = sorted(shared_dir('data', 'clips', 'videos').glob('*.mp4'))[:3]
    for number, clip in enumerate(clips, 100):
        folder = root / f'sthv2/rawframes/{number}'
        folder.mkdir(parents=True)
        capture = cv2.VideoCapture(str(clip))
        for index in range(1, 21):
            frame = cv2.resize(capture.read()[1], (160, 120))
            cv2.imwrite(str(folder / f'img_{index:05}.jpg'), frame)
        lines.append(f'{number} 20')
    (root / 'sthv2/sthv2_test_list_rawframes.txt').write_text('\n'.join(lines) + '\n')
    return [line.split()[0] for line in lines]


def read_csv(path: Path) -> dict[str, list[int]]:
    """Class indices by video id."""
    rows = [line.split(';') for line in path.read_text().splitlines()]
    return {row[0]: [int(word) for word in row[1:]] for row in rows}


def test_frames_of_something_something(run, small, tmp_path):
    names = write_ssv2_frames(tmp_path / 'data')
    ids = tmp_path / 'test.json'
    ids.write_text(json.dumps([{'id': name} for name in reversed(names)]))
    made = small('ssv2')
    status, text = submit(run, 'ssv2', made, tmp_path, '--ids', ids)
    assert status == 0, text
    target = tmp_path / 'out/ssv2_Small_results.csv'
    assert run('submit', '--check', target, '--ids', ids)[0] == 0
    written = read_csv(target)
    assert list(written) == names[::-1]
    # The toolbox's own loop on the same frames.
    config = Config.fromfile(tmp_path / 'work/ssv2_test-small_ssv2/test.py')
    config.test_evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / 'stock.pkl'))
    config.test_cfg = dict(type='TestLoop')
    config.load_from, config.work_dir = str(made[1]), str(tmp_path / 'log')
    Runner.from_cfg(config).test()
    scores = read_video_scores(tmp_path / 'stock.pkl')
    assert list(scores.ids) == names and scores.scores.shape == (3, 174)
    for name, row in zip(names, scores.scores, strict=True):
        assert written[name] == np.argsort(-row)[:5].tolist()
    assert len({tuple(best) for best in written.values()}) > 1


def test_a_leaf_runs_by_itself(run, tmp_path):
    """What the docstring of a leaf says: mim, then submit; with a small network."""
    pytest.importorskip('mim', reason='openmim is not installed; make setup installs it')
    names = write_ssv2_frames(tmp_path)
    leaf = CONFIGS / 'submission/uniformer_s_16_ssv2_test.py'
    changes = {
        'model.backbone.arch._delete_': True, 'model.backbone.arch.head_dim': 16,
        'model.backbone.init_cfg': None, 'model.cls_head.in_channels': 64,
    }  # fmt: skip
    widths = {'depths': (1, 1, 2, 1), 'dims': (16, 32, 32, 64)}
    arch = {f'model.backbone.arch.{name}': values for name, values in widths.items()}
    config = Config.fromfile(leaf)
    config.merge_from_dict(changes | arch)
    import_module('mmaction.utils').register_all_modules(False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        torch.save({'state_dict': MODELS.build(config.model).state_dict()}, tmp_path / 'w.pth')
    run_mim(
        'test', 'mmaction2', leaf, tmp_path, '--checkpoint', str(tmp_path / 'w.pth'),
        **changes, **{name: ','.join(map(str, values)) for name, values in arch.items()},
        **LOADER, **{'test_dataloader.persistent_workers': False},
    )  # fmt: skip
    (tmp_path / 'ids.txt').write_text('\n'.join(names))
    status, text = run(
        'submit', 'ssv2', tmp_path / 'work_dirs/submission/ssv2.pkl', '--ids',
        tmp_path / 'ids.txt', '--name', 'UniFormerS', '--output', tmp_path,
    )  # fmt: skip
    assert status == 0, text
    written = read_csv(tmp_path / 'ssv2_UniFormerS_results.csv')
    scores = read_video_scores(tmp_path / 'work_dirs/submission/ssv2.pkl')
    assert list(written) == list(scores.ids) == names
    assert all(len(set(best)) == 5 for best in written.values())


def test_mistakes(run, instances, tmp_path):
    needed = ('--ids', instances, '--name', 'X', '--output', tmp_path)
    status, text = run('submit', 'coco-det', *needed)
    assert status == 2 and 'name either saved PREDICTIONS or, for a test run, --config' in text
    status, text = run('submit', 'coco-det', *needed, '--config', 'pose/s_256x192')
    assert status == 2
    assert 'pose/s_256x192 is a pose row; coco-det needs a det row' in text or 'weights' in text
    (tmp_path / 'file').write_text('')
    status, text = run('submit', 'coco-det', 'P.json', *needed[:-1], tmp_path / 'file' / 'out')
    assert status == 2 and 'cannot be written' in text


@pytest.mark.parametrize(
    ('leaf', 'task', 'row', 'output'),
    [
        ('mask_rcnn_uniformer_s_coco_test_dev', 'coco-det', 'det/mask_rcnn_s_h14_1x', None),
        ('td_hm_uniformer_s_256x192_coco_test_dev', 'coco-keypoints', 'pose/s_256x192', None),
        ('upernet_uniformer_s_ade20k_test', 'ade20k', 'seg/upernet_s_g', 'output_dir'),
        ('uniformer_s_16x4_k400_test', 'kinetics', 'vid/k400_s_16x4', 'out_file_path'),
        ('uniformer_s_16x4_k600_test', 'kinetics', 'vid/k600_s_16x4', 'out_file_path'),
        ('uniformer_s_16_ssv2_test', 'ssv2', 'vid/ssv2_s16_k400', 'out_file_path'),
    ],
)
def test_the_command_tests_what_the_config_says(leaf, task, row, output, tmp_path, monkeypatch):
    """One set of facts: the leaf for mim and the command build the same data set and evaluator."""
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path))
    config = Config.fromfile(CONFIGS / 'submission' / f'{leaf}.py')
    dataset, evaluator = config.test_dataloader.dataset, config.test_evaluator
    for name in (dataset.get('ann_file'), dataset.get('bbox_file')):
        if name:
            path = Path(dataset.get('data_root', '')) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('[]')
    annotations = Path(dataset.get('data_root', '')) / dataset.get('ann_file', '')
    request = Request(
        task, row, ids=annotations if 'coco' in task else tmp_path / 'x', data=tmp_path
    )
    built = submission_config(request, rows_tests(row)[0], tmp_path / 'work')
    ours = built.test_dataloader.dataset
    assert (Path(ours.pop('data_root', '')) / ours.pop('ann_file', '')) == (
        Path(dataset.pop('data_root', '')) / dataset.pop('ann_file', '')
    )
    assert ours == dataset
    key = output or 'outfile_prefix'
    assert str(tmp_path / 'work') in built.test_evaluator.pop(key)
    assert evaluator.pop(key).startswith('work_dirs/submission/')
    assert built.test_evaluator == evaluator
