# SPDX-License-Identifier: Apache-2.0
"""Both spellings of the registered types from the scope of each real toolbox.

Each toolbox gets a fresh interpreter, since importing ``uniformer_mm`` once would hide whether a
config can find it by itself.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

TOOLBOXES = ['mmdet', 'mmseg', 'mmpose', 'mmaction', 'mmpretrain']

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
print('own:', own and own.__module__)
"""


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize('toolbox', TOOLBOXES)
def test_types_resolve_without_custom_imports(toolbox: str) -> None:
    if importlib.util.find_spec(toolbox) is None:
        pytest.skip(f'{toolbox} is not installed; make setup installs it')
    output = run_python(BUILD.format(toolbox=toolbox)).splitlines()[-1]
    own = 'mmaction.models.backbones.uniformer' if toolbox == 'mmaction' else None
    assert output == f'own: {own}'


def test_importing_the_package_imports_no_toolbox() -> None:
    heavy = ['mmcv', 'torchvision', 'safetensors', *TOOLBOXES]
    code = f'import sys, uniformer_mm; print(sorted(set({heavy!r}) & set(sys.modules)))'
    assert run_python(code).strip() == '[]'
