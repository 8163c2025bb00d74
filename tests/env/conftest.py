# SPDX-License-Identifier: Apache-2.0
"""Copies of installed packages with the text of their release, to repair and to break."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from uniformer_mm.env import probes
from uniformer_mm.env.repair import Repair
from uniformer_mm.env.repairs import REPAIRS

SITE = Path(importlib.util.find_spec('mmengine').origin).parents[1]


def released_hashes(distribution: str) -> dict[str, str]:
    """SHA-256 of each file of a package as its wheel declared it: the text of the release."""
    rows = csv.reader(metadata.distribution(distribution).read_text('RECORD').splitlines())
    return {path: digest.removeprefix('sha256=') for path, digest, _ in rows if digest}


def record_hash(file: Path) -> str:
    """Hash of a file in the form that RECORD uses."""
    digest = hashlib.sha256(file.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b'=').decode()


def run_probe(name: str, *first_on_path: Path) -> subprocess.CompletedProcess:
    """Run a probe with folders that come before the installed packages."""
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, first_on_path))}
    env['OMP_NUM_THREADS'] = '1'
    command = [sys.executable, '-W', 'ignore', probes.__file__, name]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture
def released_copy(tmp_path) -> Callable[[str], Path]:
    """Copies the package of a module beside others, with every repair taken back."""
    site = tmp_path / 'site'

    def copy(module: str) -> Path:
        if not (SITE / module).is_dir():
            pytest.skip(f'{module} is not installed')
        ignore = shutil.ignore_patterns('__pycache__', '.mim')
        shutil.copytree(SITE / module, site / module, ignore=ignore)
        for repair in REPAIRS:
            if repair.module == module:
                repair.revert(site)
        return site

    return copy


@pytest.fixture(params=REPAIRS, ids=lambda repair: repair.name)
def repair(request) -> Repair:
    """Each repair whose package is installed in the release that it knows."""
    if request.param.version() not in request.param.releases:
        pytest.skip(f'{request.param.package} {request.param.releases[-1]} is not installed')
    return request.param
