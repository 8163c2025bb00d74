# SPDX-License-Identifier: Apache-2.0
"""Output that is whole or absent."""

from __future__ import annotations

import os
import signal
import zipfile

import pytest

from uniformer_mm.files import prepare, replacing, require_plain, write_text, write_zip


def test_an_existing_file_needs_overwrite(tmp_path):
    path = tmp_path / 'a.zip'
    path.write_text('precious')
    with pytest.raises(ValueError, match=r'a.zip: exists; pass --overwrite'):
        prepare(path, overwrite=False)
    assert prepare(path, overwrite=True) == path
    assert path.read_text() == 'precious'
    with pytest.raises(ValueError, match='is a folder'):
        prepare(tmp_path, overwrite=True)


def test_a_folder_that_takes_no_files(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='cannot be written'):
        prepare(tmp_path / 'file' / 'a.zip', overwrite=False)
    with pytest.raises(ValueError, match='cannot be written'):
        prepare(tmp_path / ('x' * 300), overwrite=False)
    with pytest.raises(ValueError, match=r'a.zip: cannot be written \(Not a directory'):
        write_text(tmp_path / 'file' / 'a.zip', 'x')


@pytest.mark.parametrize('error', [RuntimeError('broken'), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(error, tmp_path):
    path = tmp_path / 'a.zip'
    path.write_text('old')

    def members():
        yield 'one', b'1'
        raise error

    with pytest.raises(type(error)):
        write_zip(path, members(), compress=True)
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.zip']


def test_a_full_disk(tmp_path):
    path = tmp_path / 'a.txt'
    with (
        pytest.raises(ValueError, match=r'a.txt: cannot be written \(No space left'),
        replacing(path) as temporary,
    ):
        temporary.write_text('half')
        with open('/dev/full', 'wb', buffering=0) as full:
            full.write(b'x')
    assert os.listdir(tmp_path) == []


@pytest.fixture
def interruptible():
    """Python's own reaction to SIGINT; shells start background processes with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('interruptible')
def test_an_interruption_leaves_nothing(tmp_path):
    def members():
        yield 'one', b'1' * 100_000
        assert len(os.listdir(tmp_path)) == 1
        signal.raise_signal(signal.SIGINT)
        yield 'two', b'2'

    with pytest.raises(KeyboardInterrupt):
        write_zip(tmp_path / 'a.zip', members(), compress=False)
    assert os.listdir(tmp_path) == []


def test_the_old_file_is_exchanged_not_rewritten(tmp_path):
    """Who reads the old file while the new one is written reads the old one to its end."""
    path, other_name = tmp_path / 'a.txt', tmp_path / 'b.txt'
    path.write_text('old')
    os.link(path, other_name)
    write_text(path, 'new')
    assert (path.read_text(), other_name.read_text()) == ('new', 'old')


def test_members_are_plain_files(tmp_path):
    write_zip(tmp_path / 'a.zip', [('x.json', b'[]')], compress=True)
    with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
        (entry,) = archive.infolist()
    assert (entry.filename, entry.file_size, entry.external_attr >> 16) == ('x.json', 2, 0o644)
    write_text(tmp_path / 'b.txt', 'a\nb\n')
    assert (tmp_path / 'b.txt').read_bytes() == b'a\nb\n'


@pytest.mark.parametrize('name', ['', 'a b', '../x', 'a/b', 'ä'])
def test_names_of_entries(name):
    with pytest.raises(ValueError, match='use only letters, digits'):
        require_plain(name)
    require_plain('UniFormer_B-1.0+')
    with pytest.raises(ValueError, match="name='my_net'"):
        require_plain('my_net', underscore=False)


def test_the_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda file: (calls.append('sync'), sync(file)))
    monkeypatch.setattr(os, 'replace', lambda *names: (calls.append('replace'), replace(*names)))
    write_text(tmp_path / 'a.txt', 'x')
    assert calls == ['sync', 'replace']
