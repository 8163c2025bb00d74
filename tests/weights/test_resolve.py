# SPDX-License-Identifier: Apache-2.0
"""Names become files: from the cache, from named folders, or from a web server on this machine."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from uniformer_mm import UniFormer2d, create_model
from uniformer_mm.weights import CheckpointError, load_weights, zoo
from uniformer_mm.weights.resolve import resolve_file, weight_folders
from uniformer_mm.weights.zoo import Mirror

from .helpers import FILE, classifier_state, meta_model

pytest.importorskip('gdown')


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.delenv('UNIFORMER_WEIGHTS', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert weight_folders() == [tmp_path / 'uniformer_mm' / 'weights']
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert weight_folders() == [Path.home() / '.cache' / 'uniformer_mm' / 'weights']


def test_order_of_folders(cache, tmp_path, monkeypatch, body, mirrors):
    """The cache, then the other folders of the variable, then those of the call."""
    mirrors(Mirror('url', 'http://127.0.0.1:9/' + FILE))
    second, third = tmp_path / 'second', tmp_path / 'third'
    monkeypatch.setenv('UNIFORMER_WEIGHTS', f'{cache}:{second}')
    for folder in (third, second, cache):
        folder.mkdir()
        (folder / FILE).write_bytes(body)
        assert resolve_file('uniformer://small_in1k', folders=[third]).path == folder / FILE


def test_changed_file_is_refused(cache, web, body, mirrors):
    web.files[FILE] = body
    mirrors(Mirror('url', web.root + FILE))
    path = resolve_file('uniformer://small_in1k').path
    path.write_bytes(body + b'x')
    with pytest.raises(CheckpointError, match='has changed since its first use'):
        resolve_file('uniformer://small_in1k')


def test_found_file_with_wrong_hash(cache, body, mirrors):
    cache.mkdir()
    (cache / FILE).write_bytes(body)
    mirrors(Mirror('drive', 'ID', md5='0' * 32))
    with pytest.raises(CheckpointError, match=rf'wrong hash for cls/s \(expected md5 {"0" * 32}'):
        resolve_file('uniformer://small_in1k')
    assert (cache / FILE).read_bytes() == body


def test_file_without_permission(nobody, body, mirrors, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(nobody))
    mirrors(Mirror('url', 'http://127.0.0.1:9/' + FILE))
    (nobody / FILE).write_bytes(body)
    (nobody / FILE).chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(CheckpointError, match=rf'{FILE}: no permission to read it'):
        resolve_file('uniformer://small_in1k')


def test_offline_says_what_to_put_where(cache, mirrors):
    row = zoo.find_row('small_in1k')
    given = [
        replace(mirror, kind='url', address=f'http://127.0.0.1:9/{i}/{FILE}')
        for i, mirror in enumerate(row.mirrors)
    ]
    mirrors(*given)
    with pytest.raises(CheckpointError) as caught:
        resolve_file('uniformer://small_in1k')
    message = str(caught.value)
    assert f'put {FILE} into {cache}' in message
    assert 'md5 f122ab0dde94b1d73ac00d2c5359a610' in message
    assert 'sha256 fe0a7ae0...' in message
    for mirror in given:
        assert mirror.url in message
    assert '\n' not in message


def test_no_download_names_the_real_hosts(cache):
    with pytest.raises(CheckpointError) as caught:
        resolve_file('uniformer://small_in1k', download=False)
    for part in (
        'https://huggingface.co/Sense-X/uniformer_image/resolve/main/uniformer_small_in1k.pth',
        'https://drive.google.com/file/d/1-uepH3Q3BhTmWU6HK-sGAGQC_MpfIiPD',
        'https://download.openmmlab.com/mmaction/v1.0/recognition/uniformerv1/',
        'https://drive.google.com/drive/folders/1-sqWoelz3agOG74VkNwadY8RHR28o4Wv',
    ):
        assert part in str(caught.value)


def test_never_released(cache):
    with pytest.raises(CheckpointError, match='vid/k400_s_32x4 was never released'):
        resolve_file('uniformer://small_k400_32x4')


def test_unknown_name():
    with pytest.raises(ValueError, match=r"'smal_in1k' is no checkpoint.*'small_in1k'"):
        resolve_file('uniformer://smal_in1k')


def test_addresses_work_too(cache, web, body):
    digest = hashlib.sha256(body).hexdigest()
    web.files[f'w-{digest[:8]}.pth'] = body
    assert resolve_file(f'{web.root}w-{digest[:8]}.pth').path == cache / f'w-{digest[:8]}.pth'
    web.files['w-00000000_20230724.pth'] = body
    with pytest.raises(CheckpointError, match=r'expected sha256 00000000\.\.\.'):
        resolve_file(f'{web.root}w-00000000_20230724.pth')


def test_names_work_where_paths_do(cache, web, mirrors):
    file = io.BytesIO()
    state = classifier_state('tiny', classes=1000)
    torch.save({'model': state}, file)
    web.files['tiny.pth'] = file.getvalue()
    model = create_model('uniformer_tiny', checkpoint=web.root + 'tiny.pth')
    assert torch.equal(model.head.weight, state['head.weight'])
    # The row of small_in1k now serves another arch: refused with the name in front.
    web.files[FILE] = file.getvalue()
    mirrors(Mirror('url', web.root + FILE))
    with pytest.raises(CheckpointError, match=r'^uniformer://small_in1k: this checkpoint is tiny'):
        load_weights(meta_model(UniFormer2d, 'small'), 'uniformer://small_in1k')
