# SPDX-License-Identifier: Apache-2.0
"""What lies in the work folder, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
import torch

from uniformer_mm.reliability import checkpoint_hook, durable
from uniformer_mm.reliability.found import newest_intact, read_quietly

from .toy import make_runner, newest


def log_of(folder: Path) -> str:
    """Everything that the runs in a folder logged."""
    return '\n'.join(file.read_text() for file in sorted(folder.glob('*/*.log')))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py'}


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize('moment', ['writing', 'written', 'renamed', 'pointed'])
def test_two_whole_files_at_any_moment(tmp_path, monkeypatch, moment):
    """Whenever the process dies, what was whole before is whole, and can be resumed."""
    make_runner(tmp_path, end=2).train()
    before = names(tmp_path)
    publish = durable.publish

    def die_at(unfinished, path):
        if moment == 'writing' and path.suffix == '.pth':
            content = unfinished.read_bytes()
            unfinished.write_bytes(content[: len(content) // 2])
            raise Killed
        if moment == 'written' and path.suffix == '.pth':
            raise Killed
        publish(unfinished, path)
        if moment == 'renamed' and path.suffix == '.pth':
            raise Killed
        if moment == 'pointed' and path.suffix != '.pth':
            raise Killed

    monkeypatch.setattr(durable, 'publish', die_at)
    with pytest.raises(Killed):
        make_runner(tmp_path, end=3, resume=True).train()
    assert before <= names(tmp_path)
    for file in tmp_path.glob('*.pth'):
        torch.load(file, weights_only=False)
    monkeypatch.undo()
    runner = make_runner(tmp_path, end=3, resume=True)
    runner.train()
    assert runner.epoch == 3
    left = {name for name in names(tmp_path) if not name.startswith('best_')}
    # A process that dies between the new file and the deletion leaves one more.
    assert left - {'epoch_1.pth'} == {'epoch_2.pth', 'epoch_3.pth', 'last_checkpoint'}


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == 'cut':
        path.write_bytes(content[:-2000])
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'flipped':
        # In the middle of a tensor, where no structure would notice.
        place = content.index(
            torch.load(path, weights_only=False)['state_dict']['line.bias'].numpy().tobytes()
        )
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif how == 'other':
        torch.save({'state_dict': {}}, path)
    elif how == 'code':
        torch.save({'state_dict': os.system}, path)
    elif how == 'gone':
        path.unlink()


@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped', 'other', 'code', 'gone'])
def test_newest_intact_checkpoint_is_resumed(tmp_path, how):
    make_runner(tmp_path, end=2).train()
    damage(tmp_path / 'epoch_2.pth', how)
    runner = make_runner(tmp_path, end=3, resume=True)
    runner.train()
    log = log_of(tmp_path)
    assert 'resumed epoch: 1, iter: 4' in log
    named = f'{tmp_path}/epoch_2.pth' if how != 'gone' else 'names no file of this folder'
    assert named in log


@pytest.mark.parametrize(
    'pointer', ['', 'epoch_1.pth', '/elsewhere/epoch_9.pth', None, '\0', b'\xff\xfe']
)
def test_pointer_may_be_empty_stale_or_gone(tmp_path, pointer):
    make_runner(tmp_path, end=2).train()
    file = tmp_path / 'last_checkpoint'
    if pointer is None:
        file.unlink()
    else:
        file.write_bytes(pointer if isinstance(pointer, bytes) else pointer.encode())
    warnings = []
    found = newest_intact(tmp_path, read_quietly, warnings.append)
    assert found == str(tmp_path / 'epoch_2.pth')


def test_no_intact_checkpoint_stops_with_a_sentence(tmp_path):
    make_runner(tmp_path, end=1).train()
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(ValueError, match=r'none of the 1 checkpoints in .* is intact'):
        make_runner(tmp_path, end=2, resume=True).train()


@pytest.mark.parametrize('how', ['cut', 'other', 'gone'])
def test_named_checkpoint_is_taken_or_refused(tmp_path, how):
    make_runner(tmp_path, end=2).train()
    file = tmp_path / 'epoch_2.pth'
    damage(file, how)
    with pytest.raises(ValueError, match=rf'resume: {file} cannot be resumed: it '):
        make_runner(tmp_path, end=3, resume=True, load_from=str(file)).train()


def test_resume_in_an_empty_folder_begins(tmp_path):
    runner = make_runner(tmp_path, end=1, resume=True)
    runner.train()
    assert runner.epoch == 1


class Faulty:
    """``runner.save_checkpoint`` that writes half a file and fails, some times."""

    def __init__(self, runner, number, times):
        self.save, self.number, self.left = runner.save_checkpoint, number, times

    def __call__(self, out_dir, filename, **options):
        if self.left > 0:
            self.left -= 1
            Path(out_dir, filename).write_bytes(b'half')
            raise OSError(self.number, os.strerror(self.number))
        self.save(out_dir, filename, **options)


def test_full_disk_costs_one_checkpoint(tmp_path):
    runner = make_runner(tmp_path, end=2, validate=False)
    runner.train()
    runner = make_runner(tmp_path, end=4, resume=True, validate=False)
    runner.save_checkpoint = Faulty(runner, errno.ENOSPC, 1)
    runner.train()
    assert runner.epoch == 4
    assert re.search(
        r'epoch_3.pth is not saved: No space left on device \([\d,]+ MiB free', log_of(tmp_path)
    )
    assert names(tmp_path) == {'epoch_2.pth', 'epoch_4.pth', 'last_checkpoint'}
    assert newest(tmp_path)['message_hub']['runtime_info']['keep_ckpt_ids'] == [2, 4]


def test_log_that_the_disk_refuses_does_not_end_the_run(tmp_path, monkeypatch):
    from mmengine.visualization import LocalVisBackend

    def refuse(self, entry, path, kind):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalVisBackend, '_dump', refuse)
    runner = make_runner(tmp_path, end=2)
    runner.train()
    assert runner.epoch == 2
    # mmengine writes each line into a file named by the time, and into scalars.json.
    assert log_of(tmp_path).count('.json cannot be written (No space left on device)') == 1


def test_older_files_are_intact_while_the_disk_is_full(tmp_path):
    runner = make_runner(tmp_path, end=4, validate=False)
    train = runner.train
    runner.save_checkpoint = Faulty(runner, errno.EDQUOT, 9)
    train()
    assert names(tmp_path) == set()
    make_runner(tmp_path / 'b', end=2, validate=False).train()
    runner = make_runner(tmp_path / 'b', end=6, resume=True, validate=False)
    runner.save_checkpoint = Faulty(runner, errno.ENOSPC, 9)
    runner.train()
    assert names(tmp_path / 'b') == {'epoch_1.pth', 'epoch_2.pth', 'last_checkpoint'}
    torch.load(tmp_path / 'b/epoch_2.pth', weights_only=False)


def test_folder_that_comes_back_is_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_hook, '_WAITS', (0, 0, 0))
    runner = make_runner(tmp_path, end=1, validate=False)
    runner.save_checkpoint = Faulty(runner, errno.EIO, 3)
    runner.train()
    assert names(tmp_path) == {'epoch_1.pth', 'last_checkpoint'}


@pytest.mark.parametrize('number', [errno.EROFS, errno.ENOENT, errno.EACCES, errno.ESTALE])
def test_folder_that_stays_away_ends_the_run_with_a_sentence(tmp_path, monkeypatch, number):
    monkeypatch.setattr(checkpoint_hook, '_WAITS', (0, 0, 0))
    runner = make_runner(tmp_path, end=3, validate=False)
    runner.save_checkpoint = Faulty(runner, number, 99)
    with pytest.raises(SystemExit) as caught:
        runner.train()
    assert caught.value.code == 1
    assert f'cannot be written ({os.strerror(number)}), after 4 attempts' in log_of(tmp_path)
    assert names(tmp_path) == set()


def test_weights_with_nan_are_not_saved(tmp_path):
    make_runner(tmp_path, end=1).train()
    runner = make_runner(tmp_path, end=2, resume=True)
    hook = next(
        hook for hook in runner.hooks if isinstance(hook, checkpoint_hook.DurableCheckpointHook)
    )
    after = hook.after_train_epoch

    def spoil(runner):
        runner.model.line.bias.data.fill_(float('inf'))
        after(runner)

    hook.after_train_epoch = spoil
    runner.train()
    assert 'epoch_2.pth is not saved: line.bias has NaN or infinite values' in log_of(tmp_path)
    assert names(tmp_path) == {'epoch_1.pth', 'best_error_epoch_1.pth', 'last_checkpoint'}
