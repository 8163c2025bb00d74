# SPDX-License-Identifier: Apache-2.0
"""Files that cannot be used: one clear sentence each, and nothing happens."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

from uniformer_mm import UniFormer2d
from uniformer_mm.weights import CheckpointError, load_weights

from .helpers import TINY, classifier_state, equal, save


def refused(path: Path, message: str) -> None:
    """Loading raises the message and leaves the model as it was."""
    model = UniFormer2d(TINY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)
    assert equal(model.state_dict(), before)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kept', [0.01, 0.3, 0.999])
def test_cut_off(tmp_path, kept, zipped):
    path = tmp_path / 'w.pth'
    torch.save({'model': classifier_state()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refused(path, r'(is cut off or|is damaged).*fetch it again')


def test_cut_off_safetensors(tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    path = tmp_path / 'w.safetensors'
    save_file(classifier_state(), path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, r'is damaged \(.*\); fetch it again')


@pytest.mark.parametrize(
    'page',
    [
        '<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>',
        '\n  <html lang="en"><body>Sorry</body></html>',
    ],
)
def test_web_page(tmp_path, page):
    path = tmp_path / 'uniformer_small_in1k.pth'
    path.write_text(page)
    refused(path, r'is an HTML page \(Google Drive sends one when its download quota is spent\)')


def test_large_file_pointer(tmp_path):
    path = tmp_path / 'w.pth'
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n')
    refused(path, 'is a Git LFS pointer')


def test_empty(tmp_path):
    path = tmp_path / 'w.pth'
    path.touch()
    refused(path, r'is empty \(0 bytes\); delete it and fetch it again')


def test_text(tmp_path):
    path = tmp_path / 'w.pth'
    for text in ('these are no weights at all', 'hello world'):
        path.write_text(text)
        refused(path, rf"is no checkpoint \(it begins with '{text[:16]}'\); name another file")


class Touch:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('zipped', [True, False, None])
def test_code_is_refused_and_not_run(tmp_path, zipped):
    touched = tmp_path / 'touched'
    content = {'model': classifier_state(), 'hook': Touch(touched)}
    path = tmp_path / 'w.pth'
    if zipped is None:
        path.write_bytes(pickle.dumps({'hook': Touch(touched)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refused(path, r'holds code or objects \(posix\.system\).*refused and nothing in it was run')
    assert not touched.exists()
    # The file would have run its command under plain unpickling.
    if zipped is None:
        pickle.loads(path.read_bytes())
        assert touched.exists()


def test_methods_of_allowed_types_cannot_be_called(tmp_path):
    """getattr is let through for log buffers alone."""
    touched = tmp_path / 'touched'

    class Reach:
        def __reduce__(self):
            return getattr, (touched, 'touch')

    path = save(tmp_path / 'w.pth', {'model': classifier_state(), 'x': Reach()})
    refused(path, r'holds code or objects \(getattr\)')
    assert not touched.exists()


def test_log_buffers_pass(tmp_path):
    buffer = HistoryBuffer()
    buffer.update(0.5)
    content = {'state_dict': classifier_state(), 'message_hub': {'loss': buffer}}
    load_weights(UniFormer2d(TINY), save(tmp_path / 'w.pth', content))


def test_missing(tmp_path):
    refused(tmp_path / 'w.pth', r'no such file; give a path or a name such as uniformer://small')


def test_no_name():
    with pytest.raises(CheckpointError, match=r"^checkpoint='' names no file; give a path or a"):
        load_weights(UniFormer2d(TINY), '')


def test_folder(tmp_path):
    refused(tmp_path, 'is a folder; name the checkpoint file in it')


def test_no_permission():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = save(Path(folder) / 'w.pth', {'model': classifier_state()})
        path.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # nobody: root could read everything
            refused(path, r'no permission to read it; change its mode \(chmod \+r\)')
        finally:
            os.seteuid(user)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds a list, not a dict of tensors'),
        ({'model': {}}, 'holds an empty state dict'),
        ({'epoch': 3, 'optimizer': {}}, r"holds no weights.*top-level keys are \['epoch', 'opt"),
        ({'model': {'a': {'b': torch.zeros(1)}}}, "entry 'a' of the state dict is a dict"),
    ],
)
def test_other_contents(tmp_path, content, message):
    refused(save(tmp_path / 'w.pth', content), message)
