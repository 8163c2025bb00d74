# SPDX-License-Identifier: Apache-2.0
"""Repairs: the edits of installed files, and the behaviour that they change."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from tests.env.conftest import record_hash, released_hashes, run_probe
from uniformer_mm.env.patching import Edit, State, write_atomically
from uniformer_mm.env.repairs import REPAIRS


def file_states(repair, site):
    paths = {edit.path for edit in repair.edits}
    return {path: (site / path).read_bytes() for path in paths if (site / path).exists()}


def test_repair_is_idempotent_and_reverts_to_the_release(repair, released_copy):
    site = released_copy(repair.module)
    before = file_states(repair, site)
    hashes = released_hashes(repair.package)
    assert {path: record_hash(site / path) for path in before} == {
        path: hashes[path] for path in before
    }
    assert repair.state(site) is State.RELEASED

    assert repair.apply(site)
    after = file_states(repair, site)
    assert repair.state(site) is State.REPAIRED
    assert after != before
    for text in after.values():
        assert b'uniformer-mm doctor' in text
    assert not repair.apply(site)
    assert file_states(repair, site) == after

    assert repair.revert(site)
    assert file_states(repair, site) == before
    assert repair.state(site) is State.RELEASED
    assert not repair.revert(site)


def test_repairs_of_one_package_do_not_disturb_each_other(released_copy):
    site = released_copy('mmengine')
    pair = [repair for repair in REPAIRS if repair.module == 'mmengine']
    assert len(pair) == 2
    for one in pair:
        one.apply(site)
    assert pair[0].revert(site)
    assert pair[0].state(site) is State.RELEASED
    assert pair[1].state(site) is State.REPAIRED


def test_interrupted_repair_is_completed(released_copy):
    site = released_copy('mmengine')
    repair = next(repair for repair in REPAIRS if len(repair.edits) > 2)
    assert repair.edits[1].apply(site)
    assert repair.state(site) is State.RELEASED
    assert repair.apply(site)
    assert repair.state(site) is State.REPAIRED


def test_unknown_text_is_left_alone(repair, released_copy):
    site = released_copy(repair.module)
    edit = repair.edits[-1]
    file = site / edit.path
    file.parent.mkdir(exist_ok=True)
    file.write_text('# rewritten by somebody else\n')
    before = file_states(repair, site)
    assert repair.state(site) is State.UNKNOWN
    assert not repair.apply(site)
    assert file_states(repair, site) == before


def test_repair_by_another_version_is_not_repaired_again(released_copy):
    site = released_copy('mmengine')
    repair = next(repair for repair in REPAIRS if repair.name == 'mmengine-weights-only')
    repair.apply(site)
    file = site / repair.edits[0].path
    file.write_text(file.read_text().replace('(OneCycleName,', '( OneCycleName,'))
    before = file.read_bytes()
    # The anchor that the repair looks for is still there once.
    assert file.read_text().count(repair.edits[0].changes[0][0]) == 1
    assert repair.state(site) is State.UNKNOWN
    assert not repair.apply(site)
    assert file.read_bytes() == before


def test_repair_by_an_earlier_version_is_replaced(tmp_path):
    """What earlier versions inserted is known by its hash, and counts as the release."""
    file = tmp_path / 'module.py'
    inserted = '\n\n# uniformer-mm doctor (begin): once\nold = 1\n# uniformer-mm doctor (end)\n'
    file.write_text(f'one\n{inserted}two\n')
    changes = (('one\n', 'one\nthree  # uniformer-mm doctor\n'),)
    assert Edit('module.py', changes).state(tmp_path) is State.UNKNOWN
    edit = Edit('module.py', changes, former=(hashlib.sha256(inserted.encode()).hexdigest(),))
    assert edit.state(tmp_path) is State.RELEASED
    assert edit.apply(tmp_path)
    assert file.read_text() == 'one\nthree  # uniformer-mm doctor\ntwo\n'
    assert edit.revert(tmp_path)
    file.write_text(f'one\n{inserted}two\n')
    assert edit.revert(tmp_path)
    assert file.read_text() == 'one\ntwo\n'


def test_revert_restores_windows_line_ends_and_mode(tmp_path):
    file = tmp_path / 'module.py'
    file.write_bytes(b'one\r\ntwo\nthree\r\n')
    file.chmod(0o640)
    edit = Edit('module.py', (('two\n', 'two  # uniformer-mm doctor\n'),))
    assert edit.apply(tmp_path)
    assert file.read_bytes() == b'one\r\ntwo  # uniformer-mm doctor\nthree\r\n'
    assert file.stat().st_mode & 0o777 == 0o640
    assert edit.revert(tmp_path)
    assert file.read_bytes() == b'one\r\ntwo\nthree\r\n'


def test_hard_linked_cache_keeps_the_release(tmp_path):
    cached, installed = tmp_path / 'cached.py', tmp_path / 'module.py'
    cached.write_text('old\n')
    os.link(cached, installed)
    assert Edit('module.py', (('old\n', 'new\n'),)).apply(tmp_path)
    assert installed.read_text() == 'new\n'
    assert cached.read_text() == 'old\n'


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('not a folder')
    with pytest.raises(ValueError, match=r'cannot write .*file/module\.py'):
        write_atomically(tmp_path / 'file' / 'module.py', 'text')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('name', ['mmengine-weights-only', 'mmengine-gloo-cpu', 'mmaction2-drn'])
def test_defect_is_real_and_repair_cures_it(name, released_copy):
    repair = next(repair for repair in REPAIRS if repair.name == name)
    site = released_copy(repair.module)
    symptoms = {
        'mmengine-weights-only': 'WeightsUnpickler error',
        'mmengine-gloo-cpu': 'cuda',
        'mmaction2-drn': "No module named 'mmaction.models.localizers.drn'",
    }
    broken = run_probe(repair.probe, site)
    assert broken.returncode == 1
    assert symptoms[name].lower() in broken.stderr.lower()
    repair.apply(site)
    cured = run_probe(repair.probe, site)
    assert cured.returncode == 0, cured.stderr


def test_drn_says_where_to_get_it(released_copy):
    site = released_copy('mmaction')
    next(repair for repair in REPAIRS if repair.name == 'mmaction2-drn').apply(site)
    drn = site / 'mmaction/models/localizers/drn/drn.py'
    program = f"import runpy; runpy.run_path({str(drn)!r})['DRN'](vocab_size=1)"
    env = {**os.environ, 'PYTHONPATH': str(site)}
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, env=env)
    assert 'does not contain the DRN localizer' in done.stderr


# What the multimodal models of both packages import from transformers, as modules of a stand-in.
MODELING_UTILS = (
    'GenerationConfig GenerationMixin PreTrainedModel apply_chunking_to_forward '
    'find_pruneable_heads_and_indices prune_linear_layer'
)


def stand_in_transformers(folder, version, names):
    """A distribution `transformers` whose ``modeling_utils`` has only `names`."""
    package = folder / 'transformers'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('')
    lines = [f'class {name}: pass' for name in names.split()]
    (package / 'modeling_utils.py').write_text('\n'.join(lines))
    info = folder / f'transformers-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n'
    )


def test_multimodal_models_stay_off_where_transformers_lacks_their_names(released_copy, tmp_path):
    repair = next(repair for repair in REPAIRS if repair.name == 'mmpretrain-multimodal')
    site = released_copy('mmpretrain')
    newer = tmp_path / 'newer'
    stand_in_transformers(newer, '5.0.0', 'PreTrainedModel')
    broken = run_probe('import-mmpretrain', site, newer)
    assert broken.returncode == 1
    repair.apply(site)
    cured = run_probe('import-mmpretrain', site, newer)
    assert cured.returncode == 0, cured.stderr


@pytest.mark.parametrize(
    ('names', 'expected'), [(MODELING_UTILS, 'True'), ('PreTrainedModel', 'False')]
)
def test_multimodal_switch_follows_the_names(names, expected, released_copy, tmp_path):
    repair = next(repair for repair in REPAIRS if repair.name == 'mmpretrain-multimodal')
    site = released_copy('mmpretrain')
    repair.apply(site)
    stand_in_transformers(tmp_path / 'other', '4.48.0', names)
    # The module alone: its package would import the models.
    program = (
        'import runpy; '
        f'print(runpy.run_path({str(site / repair.edits[0].path)!r})["WITH_MULTIMODAL"])'
    )
    env = {**os.environ, 'PYTHONPATH': str(tmp_path / 'other')}
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == expected, done.stderr
