# SPDX-License-Identifier: Apache-2.0
"""Both spellings of the registered types from the scope of each real toolbox.

Each case gets an interpreter that has not imported ``uniformer_mm``, since importing it once would
hide whether a config can find it by itself: a fork of a process that holds PyTorch and mmengine.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

TOOLBOXES = ['mmdet', 'mmseg', 'mmpose', 'mmaction', 'mmpretrain']
HEAVY = ['mmcv', 'torchvision', 'safetensors', *TOOLBOXES]

FORKS = """
import json, os, sys, traceback
import torch, mmengine.runner

results = {}
for name, code in json.loads(sys.argv[1]).items():
    assert 'uniformer_mm' not in sys.modules
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        names = {}
        try:
            exec(code, names)
            answer = ['ok', names['answer']]
        except BaseException:
            answer = ['error', traceback.format_exc()]
        os.write(write, json.dumps(answer).encode()[:60000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, 'rb') as pipe:
        results[name] = json.loads(pipe.read())
    os.waitpid(child, 0)
print(json.dumps(results))
"""

BUILD = """
import sys
from {toolbox}.registry import MODELS
from {toolbox}.utils import register_all_modules

register_all_modules(init_default_scope=True)
assert 'uniformer_mm' not in sys.modules
small = dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), head_dim=8)
for rank in (2, 3):
    scoped = MODELS.build(dict(type=f'uniformer_mm.UniFormer{{rank}}d', arch=small))
    plain = MODELS.build(dict(type=f'UniFormer{{rank}}d', arch=small))
    assert type(scoped) is type(plain), (type(scoped), type(plain))
    assert type(scoped).__module__ == 'uniformer_mm.models.uniformer'
own = MODELS.get('UniFormer')
answer = own and own.__module__
"""

OTHERS = {
    'imports': f"""
import sys
before = set(sys.modules)
import uniformer_mm
uniformer_mm.UniFormer2d
answer = sorted((set(sys.modules) - before) & set({HEAVY!r}))
""",
    'root': """
import uniformer_mm
from mmengine.registry import MODELS
answer = MODELS.get('UniFormer2d') is uniformer_mm.UniFormer2d
""",
}


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def answers() -> dict[str, list]:
    """What each piece of code found, or its traceback."""
    installed = [name for name in TOOLBOXES if importlib.util.find_spec(name) is not None]
    codes = {name: BUILD.format(toolbox=name) for name in installed} | OTHERS
    return json.loads(run_python(FORKS, json.dumps(codes)).splitlines()[-1])


@pytest.mark.parametrize('toolbox', TOOLBOXES)
def test_types_resolve_without_custom_imports(toolbox: str, answers: dict[str, list]) -> None:
    if toolbox not in answers:
        pytest.skip(f'{toolbox} is not installed; make setup installs it')
    own = 'mmaction.models.backbones.uniformer' if toolbox == 'mmaction' else None
    assert answers[toolbox] == ['ok', own]


def test_importing_the_package_imports_no_toolbox(answers: dict[str, list]) -> None:
    assert answers['imports'] == ['ok', []]


def test_plain_types_resolve_in_the_root_after_import(answers: dict[str, list]) -> None:
    assert answers['root'] == ['ok', True]
