# SPDX-License-Identifier: Apache-2.0
"""Downloads: resumed, checked, under their final name only when whole, once for all processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import zlib
from pathlib import Path

import pytest

from uniformer_mm.weights import CheckpointError, download, resolve
from uniformer_mm.weights.resolve import resolve_file
from uniformer_mm.weights.zoo import Mirror

from .helpers import FILE, names

gdown = pytest.importorskip('gdown')

PAGE = b'<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>'


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def test_download_records_and_is_used_again(cache, web, body, mirrors):
    web.files[FILE] = body
    mirrors(Mirror('url', web.root + FILE))
    resolved = resolve_file('uniformer://small_in1k')
    assert resolved.path == cache / FILE
    assert resolved.path.read_bytes() == body
    assert names(cache) == [FILE, FILE + '.json']
    record = json.loads((cache / (FILE + '.json')).read_text())
    assert record['sha256'] == hashlib.sha256(body).hexdigest()
    assert (record['row'], record['url']) == ('cls/s', web.root + FILE)
    assert resolve_file('uniformer://small_in1k').digests == resolved.digests
    assert len(web.requests) == 1


def test_first_use_shows_the_hash(cache, web, body, mirrors, capfd, monkeypatch):
    said = []
    monkeypatch.setattr(resolve, 'print_log', lambda text, **_: said.append(text))
    web.files[FILE] = body
    mirrors(Mirror('url', web.root + FILE))
    resolve_file('uniformer://small_in1k')
    assert len(said) == 1
    assert f'first use, sha256 {hashlib.sha256(body).hexdigest()} recorded' in said[0]
    resolve_file('uniformer://small_in1k')
    assert len(said) == 1


def test_interrupted_download_is_resumed(cache, web, body, mirrors):
    web.files[FILE] = body
    web.break_after[FILE] = 1_500_000
    mirrors(Mirror('url', web.root + FILE, md5=md5(body)))
    with pytest.raises(CheckpointError, match='was not downloaded'):
        resolve_file('uniformer://small_in1k')
    assert not (cache / FILE).exists()
    pieces = [p for p in cache.iterdir() if p.suffix == '.part']
    assert len(pieces) == 1
    kept = pieces[0].stat().st_size
    assert 1_000_000 <= kept <= 1_500_000
    assert resolve_file('uniformer://small_in1k').path.read_bytes() == body
    assert web.requests[-1] == (FILE, f'bytes={kept}-')
    assert names(cache) == [FILE, FILE + '.json']


def test_retries_resume_by_themselves(cache, web, body, mirrors, monkeypatch):
    monkeypatch.setattr(download, 'RETRIES', 2)
    web.files[FILE] = body
    web.break_after[FILE] = 1_500_000
    mirrors(Mirror('url', web.root + FILE, md5=md5(body)))
    assert resolve_file('uniformer://small_in1k').path.read_bytes() == body
    assert re.fullmatch(r'bytes=1\d{6}-', web.requests[-1][1])


def test_google_drive(cache, web, body, mirrors, monkeypatch):
    """gdown itself runs; only the address behind the id is ours."""
    real = gdown.download
    asked = []

    def redirected(*, id: str, **options) -> str:
        asked.append(id)
        return real(url=web.root + id, **options)

    monkeypatch.setattr(gdown, 'download', redirected)
    web.files['DRIVE-ID'] = body
    mirrors(Mirror('drive', 'DRIVE-ID', md5=md5(body)))
    resolved = resolve_file('uniformer://small_in1k')
    assert asked == ['DRIVE-ID']
    assert resolved.path == cache / FILE
    assert resolved.path.read_bytes() == body


def test_drive_quota_page_and_the_next_host(cache, web, body, mirrors):
    web.files['page/' + FILE] = PAGE
    web.files['good/' + FILE] = body
    mirrors(Mirror('url', web.root + 'page/' + FILE), Mirror('url', web.root + 'good/' + FILE))
    resolved = resolve_file('uniformer://small_in1k')
    assert resolved.mirror.url == web.root + 'good/' + FILE
    assert resolved.path.read_bytes() == body
    assert names(cache) == [FILE, FILE + '.json']


def test_page_from_every_host(cache, web, mirrors):
    web.files[FILE] = PAGE
    mirrors(Mirror('url', web.root + FILE))
    with pytest.raises(CheckpointError, match=r'sent an HTML page \(Google Drive sends one'):
        resolve_file('uniformer://small_in1k')
    assert names(cache) == []


@pytest.mark.parametrize('known', [{'md5': '0' * 32}, {'sha256_prefix': '0badc0de'}])
def test_wrong_hash_is_kept_aside(cache, web, body, mirrors, known):
    web.files[FILE] = body
    mirrors(Mirror('url', web.root + FILE, **known))
    with pytest.raises(CheckpointError, match=r'wrong hash \(expected .*kept aside as'):
        resolve_file('uniformer://small_in1k')
    assert names(cache) == [FILE + '.rejected']
    assert (cache / (FILE + '.rejected')).read_bytes() == body


def test_disk_full(cache, web, body, mirrors):
    """/dev/full refuses every byte, as a full disk does."""
    address = web.root + FILE
    web.files[FILE] = body
    mirrors(Mirror('url', address), Mirror('url', web.root + 'other/' + FILE))
    cache.mkdir()
    piece = cache / f'{FILE}.{zlib.crc32(address.encode()):08x}abcdefgh.part'
    piece.symlink_to('/dev/full')
    with pytest.raises(CheckpointError, match=r'no space left \(.*UNIFORMER_WEIGHTS to another'):
        resolve_file('uniformer://small_in1k')
    assert names(cache) == [piece.name]
    piece.unlink()
    assert resolve_file('uniformer://small_in1k').path.read_bytes() == body


def test_folder_without_permission(nobody, web, body, mirrors, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(nobody / 'cache'))
    mirrors(Mirror('url', web.root + FILE))
    web.files[FILE] = body
    for mode in (0o555, 0o000):
        nobody.chmod(mode)
        if os.geteuid() == 0:
            os.seteuid(65534)  # root could write everywhere
        with pytest.raises(CheckpointError, match='no permission to write; set UNIFORMER_WEIGHTS'):
            resolve_file('uniformer://small_in1k')
        os.seteuid(os.getuid())


def _fetch_in_another_process(url: str, target: str, start, results) -> None:
    start.wait()
    results.put(download.fetch(Mirror('url', url), Path(target))['sha256'])


def test_two_processes_at_once(cache, web, body):
    """One downloads, the other waits and finds the file."""
    web.files[FILE] = body
    context = multiprocessing.get_context('fork')
    start, results = context.Event(), context.Queue()
    arguments = (web.root + FILE, str(cache / FILE), start, results)
    workers = [context.Process(target=_fetch_in_another_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    digests = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert digests == [hashlib.sha256(body).hexdigest()] * 3
    assert len(web.requests) == 1
    assert names(cache) == [FILE, FILE + '.json']


def test_without_gdown(cache, mirrors, monkeypatch):
    find = download.importlib.util.find_spec
    monkeypatch.setattr(
        download.importlib.util, 'find_spec', lambda name: None if name == 'gdown' else find(name)
    )
    mirrors(Mirror('url', 'http://127.0.0.1:9/' + FILE))
    with pytest.raises(CheckpointError, match=re.escape('pip install gdown')):
        resolve_file('uniformer://small_in1k')


@pytest.mark.parametrize('kind', ['a file', 'below a file', 'on /proc'])
def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch, kind):
    plain = tmp_path / 'plain'
    plain.write_text('')
    folder = {'a file': plain, 'below a file': plain / 'x', 'on /proc': Path('/proc/x')}[kind]
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(folder))
    words = rf'^{folder} cannot be used as a folder \(.*\); set UNIFORMER_WEIGHTS to a folder'
    with pytest.raises(CheckpointError, match=words):
        resolve.resolve_file('uniformer://small_in1k')
