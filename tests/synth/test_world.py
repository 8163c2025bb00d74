# SPDX-License-Identifier: Apache-2.0
"""Whose folder it is, what is in it, and that nothing is ever half there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uniformer_mm.cli import main
from uniformer_mm.synth import MARKER, TASKS, make_data, staging


def _contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file()
    }


def _run(*arguments: str | Path) -> int:
    return main(['make-data', *map(str, arguments)])


def test_bytes_depend_on_the_seed_alone(world: Path, tmp_path: Path) -> None:
    # One worker instead of two, and the tasks one after the other in another order.
    for task in reversed(TASKS):
        make_data(tmp_path / 'again', size='tiny', tasks=[task], workers=1)
    assert _contents(tmp_path / 'again') == _contents(world)


def test_another_seed_gives_other_samples(world: Path, tmp_path: Path) -> None:
    make_data(tmp_path / 'other', seed=1, size='tiny', workers=2)
    first, other = _contents(world), _contents(tmp_path / 'other')
    pixels = [name for name in first if name.endswith(('.jpg', '.mp4', '.JPEG')) and name in other]
    assert len(pixels) > 100
    assert not [name for name in pixels if first[name] == other[name]]


def test_samples_of_a_world_differ_from_each_other(world: Path) -> None:
    pixels = [v for name, v in _contents(world).items() if name.endswith(('.jpg', '.mp4', '.JPEG'))]
    # Two frames of a clip in which nothing moves may be equal; no class of SSv2 rests.
    assert len(set(pixels)) == len(pixels)


def test_marker_counts_what_is_there(world: Path) -> None:
    marker = json.loads((world / MARKER).read_text())
    names = set(_contents(world)) - {MARKER}
    assert sum(marker['files'].values()) == len(names)
    assert marker['tasks'] == {name: task.counts['tiny'] for name, task in TASKS.items()}
    texts = {name for name in names if name.endswith(('.json', '.txt'))}
    assert set(marker['lists']) == texts


def test_doing_it_again_does_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob('*')}
    assert make_data(world, size='tiny', tasks=['seg']).written == ()
    assert _run(world, '--size', 'tiny') == 0
    assert 'nothing to do' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in world.rglob('*')} == before


def test_command_writes_a_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path / 'd', '--size', 'tiny', '--tasks', 'cls', '--workers', '1') == 0
    output = capsys.readouterr().out
    assert 'cls' in output and f'UNIFORMER_DATA={tmp_path / "d"}' in output
    assert sorted(p.name for p in (tmp_path / 'd').iterdir()) == [MARKER, 'imagenet']


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / 'data'
    make_data(root, size='tiny', tasks=['cls'], workers=1)
    return root


def test_adding_a_task_keeps_the_others(small: Path) -> None:
    before = _contents(small)
    (small / 'mine.txt').write_text('a file of somebody else')
    assert make_data(small, size='tiny', tasks=['seg', 'cls'], workers=1).written == ('seg',)
    after = _contents(small)
    assert after.pop('mine.txt') == b'a file of somebody else'
    assert {name: after[name] for name in before if name != MARKER} == {
        name: content for name, content in before.items() if name != MARKER
    }
    assert list(json.loads(after[MARKER])['tasks']) == ['seg', 'cls']
    with pytest.raises(ValueError, match='1 files more than make-data wrote'):
        make_data(small, size='tiny', seed=5, overwrite=True)
    assert _contents(small).keys() == after.keys() | {'mine.txt'}


@pytest.mark.parametrize('name', ['a.txt', MARKER])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"precious": true}')
    for overwrite in (False, True):
        with pytest.raises(ValueError, match='left alone') as caught:
            make_data(tmp_path, size='tiny', overwrite=overwrite)
        assert str(tmp_path) in str(caught.value)
    assert _contents(tmp_path) == {name: b'{"precious": true}'}


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'a.txt').write_text('precious')
    assert _run(tmp_path) == 2
    output = capsys.readouterr()
    assert output.err.count('\n') == 1 and 'not made by make-data' in output.err
    assert not output.out.strip()


def test_other_parameters_need_overwrite(small: Path) -> None:
    before = _contents(small)
    with pytest.raises(ValueError, match=r'of seed 0, not seed 7; .*--overwrite'):
        make_data(small, seed=7, size='tiny', tasks=['cls'])
    with pytest.raises(ValueError, match='of size tiny, not size small'):
        make_data(small, tasks=['cls'])
    assert _contents(small) == before
    made = make_data(small, seed=7, size='tiny', tasks=['seg'], overwrite=True, workers=1)
    assert made.written == ('seg',)
    assert not (small / 'imagenet').exists() and (small / 'ade').is_dir()


@pytest.mark.parametrize('harm', ['remove', 'edit', 'remove list'])
def test_damage_is_noticed_and_repaired(tmp_path: Path, harm: str) -> None:
    root = tmp_path / 'data'
    make_data(root, size='tiny', tasks=['seg'], workers=1)
    whole = _contents(root)
    table = root / 'ade' / 'ADEChallengeData2016' / 'objectInfo150.txt'
    if harm == 'remove':
        next(root.rglob('*.png')).unlink()
    elif harm == 'edit':
        table.write_text(table.read_text().replace('wall', 'moat'))
    else:
        table.unlink()
    with pytest.raises(ValueError, match=r'is damaged: .*--overwrite'):
        make_data(root, size='tiny', tasks=['seg'])
    make_data(root, size='tiny', tasks=['seg'], overwrite=True, workers=1)
    assert _contents(root) == whole


@pytest.mark.parametrize('workers', [1, 2])
def test_a_failure_leaves_no_trace(small: Path, workers: int) -> None:
    before = _contents(small)

    def stop(name: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    for root in (small, small.parent / 'new'):
        with pytest.raises(KeyboardInterrupt):
            make_data(root, size='tiny', tasks=['seg'], workers=workers, progress=stop)
    assert _contents(small) == before
    assert [path.name for path in small.parent.iterdir()] == ['data']


def test_a_failing_rename_puts_the_old_world_back(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _contents(small)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if '.unfinished-' in self.name:
            raise PermissionError('no')
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', fail)
    with pytest.raises(ValueError, match='cannot write the synthetic world'):
        make_data(small, seed=3, size='tiny', tasks=['seg'], overwrite=True, workers=1)
    assert _contents(small) == before
    assert [path.name for path in small.parent.iterdir()] == ['data']


def test_what_a_killed_run_left_goes_away(tmp_path: Path) -> None:
    script = (
        'import sys, time\n'
        'from uniformer_mm.synth import make_data\n'
        'make_data(sys.argv[1], size="tiny", tasks=["cls"], workers=1,\n'
        '          progress=lambda *_: (print("on", flush=True), time.sleep(60)))\n'
    )
    root = tmp_path / 'data'
    process = subprocess.Popen(
        [sys.executable, '-c', script, str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == 'on\n'
        (unfinished,) = tmp_path.iterdir()
        # While it runs, another run leaves its folder alone.
        with staging.staged(root, 0):
            assert unfinished.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    shutil.rmtree(root)
    assert [path.name for path in tmp_path.iterdir()] == [unfinished.name]
    make_data(root, size='tiny', tasks=['cls'], workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ['data']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'tasks': ['det', 'dets']}, r"tasks must be some of det, pose.*\['det', 'dets'\]"),
        ({'tasks': 'det'}, "tasks must be some of .*; got 'det'"),
        ({'tasks': []}, 'tasks must be some of'),
        ({'seed': -1}, 'seed must be an integer that is not negative; got -1'),
        ({'seed': 1.5}, 'seed must be an integer'),
        ({'size': 'huge'}, "size must be one of small, tiny; got 'huge'"),
        ({'workers': 0}, 'workers must be at least 1; got 0'),
    ],
)
def test_arguments_are_checked_first(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(tmp_path / 'data', **arguments)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'file'
    file.write_text('')
    with pytest.raises(ValueError, match=f'{file} is a file'):
        make_data(file, size='tiny')
    with pytest.raises(ValueError, match='cannot write the synthetic world'):
        make_data(file / 'below', size='tiny')
    with pytest.raises(ValueError, match='is a mount point'):
        make_data('/proc', size='tiny')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ValueError, match=r'0 MiB free, but .* MiB are needed'):
        make_data(tmp_path / 'data', size='tiny')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(ValueError, match='No space left on device'):
        make_data(tmp_path / 'data', size='tiny', tasks=['cls'], workers=1)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_and_a_link_are_welcome(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'empty')
    made = make_data(tmp_path / 'link', size='tiny', tasks=['cls'], workers=1)
    assert made.root == tmp_path / 'empty'
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'link' / MARKER).is_file()
    assert (made.root.stat().st_mode & 0o777) == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_console_command_tells_mistakes(tmp_path: Path, capsys) -> None:
    """Once, as of every subcommand; --debug gives the traceback."""
    words = ['make-data', str(tmp_path / 'data'), '--size', 'huge']
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith('uniformer-mm make-data: ') and "'huge'" in error
    with pytest.raises(ValueError, match='huge'):
        main(['--debug', *words])
