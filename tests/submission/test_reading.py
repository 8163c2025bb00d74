# SPDX-License-Identifier: Apache-2.0
"""Files of strangers: every trick is refused by name, nothing is unpacked or run."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from uniformer_mm.submission import reading
from uniformer_mm.submission.check import check_file
from uniformer_mm.submission.reading import is_number, open_members, parse_json, read_bytes
from uniformer_mm.submission.video.unpickle import read_results


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


@pytest.mark.parametrize(
    'name', ['/etc/x.json', '../x.json', 'a/../../x.json', 'C:/x.json', 'a\\..\\x.json']
)
def test_names_that_leave_the_archive(name, tmp_path):
    path = make_zip(tmp_path / 'x.zip', {name: b'[]'})
    with pytest.raises(ValueError, match='leads out of the archive'):
        check_file(path)
    assert [file.name for file in tmp_path.iterdir()] == ['x.zip']


def test_a_zip_bomb(tmp_path):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x.json', b'0' * (5 << 20))
    with pytest.raises(ValueError, match=r'grows from [\d,]+ to 5,242,880 bytes; .*zip bomb'):
        check_file(path)


def test_a_lying_directory(tmp_path):
    """The directory says 10 bytes, the data inflate to more: no more than stated is handed out."""
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x.json', b'[' + b' ' * 100_000 + b']')
    content = bytearray(path.read_bytes())
    at = content.index(b'PK\x01\x02') + 24
    assert struct.unpack_from('<I', content, at)[0] == 100_002
    struct.pack_into('<I', content, at, 10)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"member 'x.json' is damaged"):
        check_file(path)


def test_other_archives_that_are_not_read(tmp_path, monkeypatch):
    link = zipfile.ZipInfo('x.json')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / 'link.zip', 'w') as archive:
        archive.writestr(link, '/etc/passwd')
    with pytest.raises(ValueError, match=r"member 'x.json' is a link"):
        open_members(tmp_path / 'link.zip')

    path = make_zip(tmp_path / 'locked.zip', {'x.json': b'[]'})
    content = bytearray(path.read_bytes())
    content[content.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"member 'x.json' has a password"):
        open_members(path)

    path = tmp_path / 'method.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
        archive.writestr('x.json', '[]')
    with pytest.raises(ValueError, match=r"compression method 14; expected one of \['stored'"):
        open_members(path)

    path = tmp_path / 'twice.zip'
    with warnings.catch_warnings(), zipfile.ZipFile(path, 'w') as archive:
        warnings.simplefilter('ignore')
        archive.writestr('x.json', '[]')
        archive.writestr('x.json', '[1]')
    with pytest.raises(ValueError, match=r"member 'x.json' is there twice"):
        open_members(path)

    (tmp_path / 'text.zip').write_text('not a zip file')
    with pytest.raises(ValueError, match='not a readable zip archive'):
        open_members(tmp_path / 'text.zip')
    with pytest.raises(ValueError, match='no such file or folder'):
        open_members(tmp_path / 'absent.zip')
    with pytest.raises(ValueError, match=r'neither JSON nor PNG files in it \(1 files\)'):
        check_file(make_zip(tmp_path / 'other.zip', {'a.txt': b''}))
    with pytest.raises(ValueError, match=r'empty.zip: an archive without files'):
        check_file(make_zip(tmp_path / 'empty.zip', {}))

    monkeypatch.setattr(reading, 'MEMBER_LIMIT', 2)
    path = make_zip(tmp_path / 'many.zip', {str(n): b'' for n in range(3)})
    with pytest.raises(ValueError, match='3 members; no submission has more than 2'):
        open_members(path)
    monkeypatch.setattr(reading, 'ARCHIVE_LIMIT', 0)
    with pytest.raises(ValueError, match='more than 0 MiB unpacked'):
        open_members(make_zip(tmp_path / 'large.zip', {'a': b'1'}))


def test_huge_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / 'detections_val2017_X_results.json'
    with path.open('wb') as file:
        file.write(b'[')
        os.truncate(file.fileno(), reading.JSON_LIMIT + 1)
    with pytest.raises(ValueError, match=r'has 2,147,483,649 bytes; more than 2,048 MiB is not re'):
        check_file(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'[1, 2', r'not JSON \(line 1, column 6'),
        (b'[1,\n 2 3]', r'not JSON \(line 2, column 4'),
        (b'[NaN]', 'NaN is not a JSON number'),
        (b'[-Infinity]', '-Infinity is not a JSON number'),
        (b'\xff\xfe', 'not UTF-8 text'),
        (b'[' * 200_000, 'nested too deeply'),
        (b'{"a": 1, "b": 2, "a": 3}', "key 'a' is there twice in one object"),
    ],
)
def test_json(content, message):
    with pytest.raises(ValueError, match=message):
        parse_json(content, 'x.json')


def test_long_numbers_are_refused():
    with pytest.raises(ValueError, match=r'x.json: Exceeds'):
        parse_json(b'9' * 10_000, 'x.json')
    assert not is_number(parse_json(b'1e999', 'x.json'))
    assert not is_number(parse_json(b'9' * 100, 'x.json'))


def test_unreadable_files(tmp_path):
    with pytest.raises(ValueError, match=r'absent.json: cannot be read \(No such file'):
        read_bytes(tmp_path / 'absent.json')
    with pytest.raises(ValueError, match=r'x.dat: no such file or folder'):
        check_file(tmp_path / 'x.dat')
    (tmp_path / 'x.dat').touch()
    with pytest.raises(ValueError, match=r'x.dat: leaderboard files end in'):
        check_file(tmp_path / 'x.dat')


class Evil:
    """Would leave a file behind if its pickle were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f'touch {self.path}',))


def nested(path: Path) -> bytes:
    """The same hidden in the bytes of a tensor's storage, which torch unpickles in turn."""
    inner = io.BytesIO()
    torch.save(Evil(path), inner, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self):
            return (torch.storage._load_from_bytes, (inner.getvalue(),))

    return pickle.dumps([{'pred_score': Storage()}])


def test_code_in_a_pickle_is_not_run(tmp_path):
    mark = tmp_path / 'mark'
    path = tmp_path / 'scores.pkl'
    path.write_bytes(pickle.dumps([{'pred_score': Evil(mark)}]))
    with pytest.raises(ValueError, match=r'it names (posix|nt).system\. A pickle can run any prog'):
        read_results(path)
    path.write_bytes(nested(mark))
    with pytest.raises(ValueError, match=r'not read|not a readable pickle'):
        read_results(path)
    assert not mark.exists()
    # The trap is real: the plain unpickler springs it.
    pickle.loads(path.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'not a readable pickle'),
        (b'text', 'not read|not a readable pickle'),
        (pickle.dumps({'a': 1}), 'holds a dict, expected the list of data samples'),
        (pickle.dumps([1]), 'holds a list, expected the list of data samples'),
        (pickle.dumps([{'s': torch.zeros(3)}])[:-30], 'not read|not a readable pickle'),
        (pickle.dumps([{'s': np.zeros(3)}]), r'it names numpy\S+ .*Save NumPy arrays as .npz'),
        (pickle.dumps([{'s': json.JSONDecoder}]), 'it names json.decoder.JSONDecoder'),
        (b'c_codecs\nencode\n(Vab\nVrot13\ntR.', "it encodes text as 'rot13'"),
        (b'Pelsewhere\n.', 'it refers to an object outside the file'),
    ],
)
def test_other_pickles(content, message, tmp_path):
    path = tmp_path / 'scores.pkl'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_results(path)
