# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says is no order: no text of it is run, no path of it deleted or written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uniformer_mm.reliability.trust import distrust, plain_name

from .test_saving import log_of
from .toy import make_runner, newest


def hostile(folder: Path, **changes) -> Path:
    """A checkpoint of a real run, changed as a stranger could."""
    make_runner(folder / 'theirs', end=1).train()
    checkpoint = newest(folder / 'theirs')
    checkpoint['meta'].update(changes.get('meta', {}))
    checkpoint['message_hub']['runtime_info'].update(changes.get('info', {}))
    keys = dict.fromkeys(changes.get('info', {}), True)
    checkpoint['message_hub']['resumed_keys'].update(keys)
    path = folder / 'hostile.pth'
    torch.save(checkpoint, path)
    return path


def test_text_is_not_run(tmp_path):
    obeyed = tmp_path / 'obeyed'
    text = f'x = __import__("pathlib").Path({str(obeyed)!r}).touch()'
    path = hostile(tmp_path, meta={'config': text, 'cfg': text})
    make_runner(tmp_path / 'ours', end=2, resume=True, load_from=str(path)).train()
    assert not obeyed.exists()


@pytest.mark.parametrize('how', ['dear', '../dear', 'link'])
def test_paths_stay_in_the_work_folder(tmp_path, how):
    dear = tmp_path / 'dear'
    dear.write_text('must survive')
    named = {'dear': str(dear), '../dear': f'{tmp_path}/ours/../dear', 'link': '..'}[how]
    info = {'best_ckpt': named, 'best_score': 1e9, 'last_ckpt': named, 'keep_ckpt_ids': [named]}
    path = hostile(tmp_path, info=info)
    make_runner(tmp_path / 'ours', end=3, resume=True, load_from=str(path)).train()
    assert dear.read_text() == 'must survive'
    log = log_of(tmp_path / 'ours')
    assert f'best_ckpt of the checkpoint is {named!r}' in log
    assert 'no list of numbers: ignored' in log
    best = newest(tmp_path / 'ours')['message_hub']['runtime_info']['best_ckpt']
    assert Path(best).parent == tmp_path / 'ours'


def test_moved_work_folder_keeps_its_best(tmp_path):
    """A folder that was renamed names its old self; the file of that name in it is meant."""
    make_runner(tmp_path / 'before', end=1).train()
    (tmp_path / 'before').rename(tmp_path / 'after')
    info = {'best_ckpt': f'{tmp_path}/before/best_error_epoch_1.pth'}
    checkpoint = {'meta': {}, 'message_hub': {'runtime_info': info}}
    distrust(checkpoint, str(tmp_path / 'after'))
    assert info['best_ckpt'] == f'{tmp_path}/after/best_error_epoch_1.pth'


@pytest.mark.parametrize(
    'name', ['', '.', '..', '/', 'a/..', '.hidden', 'a\0b', 'a\x1b[31m', 'x' * 300, 5, None, b'a']
)
def test_what_is_no_name_of_a_checkpoint(name):
    assert plain_name(name) is None


@pytest.mark.parametrize(
    'meta',
    [
        {'epoch': -1},
        {'iter': 'x'},
        {'epoch': 1.5},
        {'seed': [1]},
        {'iter': True},
        {'epoch': 1 << 70},
    ],
)
def test_counts_are_counts(meta):
    with pytest.raises(ValueError, match=r"the checkpoint's meta\['.*expected a number from 0 on"):
        distrust({'meta': meta}, None)
