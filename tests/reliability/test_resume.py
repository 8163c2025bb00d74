# SPDX-License-Identifier: Apache-2.0
"""A run that was interrupted and resumed ends, bit for bit, as one that was not."""

from __future__ import annotations

import shutil

import pytest
import torch
from mmengine.hooks import Hook

from .toy import ends_alike, make_runner, newest


class Interrupted(BaseException):
    """Nothing catches it."""


class Interrupt(Hook):
    """Ends the process's work after an iteration, or in a validation, as a kill would."""

    priority = 'LOWEST'

    def __init__(self, iteration, during='train'):
        self.iteration, self.during = iteration, during

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.during == 'train' and runner.iter + 1 == self.iteration:
            raise Interrupted

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.during == 'val' and runner.iter == self.iteration:
            raise Interrupted


BY_EPOCH = {'by_epoch': True, 'end': 3}
MID_EPOCH = {'by_epoch': True, 'end': 3, 'save_by_epoch': False, 'interval': 3}
BY_ITERATION = {'by_epoch': False, 'end': 11, 'interval': 3, 'sampler': 'InfiniteSampler'}
PASSES = {'by_epoch': False, 'end': 11, 'interval': 3, 'sampler': 'DefaultSampler'}


@pytest.mark.parametrize(
    ('options', 'stops'),
    [
        (BY_EPOCH, [(6, 'train')]),
        # Saved, then killed in the validation that belongs to it.
        (BY_EPOCH, [(8, 'val')]),
        (MID_EPOCH, [(4, 'train'), (11, 'train')]),
        (BY_ITERATION, [(4, 'train'), (8, 'val'), (10, 'train')]),
        (PASSES, [(7, 'train')]),
        ({**BY_EPOCH, 'workers': 2}, [(6, 'train')]),
        ({**BY_EPOCH, 'workers': 2, 'persistent': False}, [(8, 'val')]),
        ({**MID_EPOCH, 'workers': 2}, [(7, 'train')]),
        ({**BY_ITERATION, 'workers': 2}, [(7, 'train')]),
        ({**MID_EPOCH, 'accumulate': 2}, [(3, 'train')]),
        # No seed in the config: the first process draws one, and later ones take it over.
        ({**MID_EPOCH, 'seed': None}, []),
    ],
    ids=repr,
)
def test_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch, options, stops):
    # mmengine waits 2 s between two passes.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    straight, broken = tmp_path / 'straight', tmp_path / 'broken'
    make_runner(straight, **options).train()
    if options.get('seed', 0) is None:
        # One run, continued from its own middle.
        shutil.copytree(straight, broken)
        (broken / 'last_checkpoint').unlink()
        (broken / 'iter_12.pth').unlink()
    for number, stop in enumerate(stops):
        with pytest.raises(Interrupted):
            make_runner(broken, resume=number > 0, hooks=[Interrupt(*stop)], **options).train()
        # Whatever the process would have drawn next is gone with it.
        torch.manual_seed(12345)
    make_runner(broken, resume=True, **options).train()
    assert ends_alike(straight, broken) == []
    assert {f.name for f in straight.glob('*.pth')} == {f.name for f in broken.glob('*.pth')}


def test_samples_do_not_depend_on_the_number_of_workers(tmp_path):
    for workers in (0, 1, 2):
        make_runner(tmp_path / str(workers), workers=workers).train()
    assert ends_alike(tmp_path / '0', tmp_path / '1') == []
    assert ends_alike(tmp_path / '0', tmp_path / '2') == []


def test_samples_differ_between_epochs(tmp_path):
    """mmengine's workers draw the same in each epoch, unless they are persistent."""
    runner = make_runner(tmp_path, workers=1, persistent=False)
    seen = []

    def note(runner, batch_idx, data_batch=None, outputs=None):
        seen.extend(zip(data_batch['index'].tolist(), data_batch['x'][:, 0].tolist(), strict=True))

    hook = Hook()
    hook.after_train_iter = note
    runner.register_hook(hook)
    runner.train()
    assert len(seen) == 36
    assert len({drawn for _, drawn in seen}) == 36


def test_skipped_samples_are_not_read(tmp_path):
    with pytest.raises(Interrupted):
        make_runner(tmp_path, hooks=[Interrupt(10)], **{**BY_ITERATION, 'interval': 9}).train()
    runner = make_runner(tmp_path, resume=True, validate=False, **BY_ITERATION)
    dataset = runner.train_dataloader.dataset
    read = []
    get = type(dataset).__getitem__

    class Counting(type(dataset)):
        def __getitem__(self, index):
            read.append(index)
            return get(self, index)

    dataset.__class__ = Counting
    runner.train()
    # Two iterations were left; mmengine's own loader may have read its first batch ahead.
    assert len(read) == 2 * 3


def test_checkpoint_of_mmengine_is_resumed_with_a_warning(tmp_path, caplog):
    make_runner(tmp_path, end=1).train()
    checkpoint = newest(tmp_path)
    del checkpoint['uniformer_mm_run']
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    runner = make_runner(tmp_path, end=2, resume=True)
    runner.train()
    assert runner.epoch == 2
    log = next(iter(sorted(tmp_path.glob('*/*.log'))[-1:])).read_text()
    assert 'holds no random state' in log


def test_log_history_is_bounded(tmp_path):
    runner = make_runner(tmp_path, end=4, history=5)
    runner.train()
    saved = newest(tmp_path)['message_hub']['log_scalars']['train/loss'].data[0]
    assert len(saved) == 5
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 5
