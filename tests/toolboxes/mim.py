# SPDX-License-Identifier: Apache-2.0
"""Running mim as a user would: another process, a foreign directory, options as arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..conftest import ROOT


def run_mim(
    verb: str, package: str, config: Path, data_root: Path, *arguments: str, **options
) -> str:
    """Run ``mim VERB PACKAGE CONFIG`` on the CPU and return what it prints.

    It runs in ``data_root`` and writes to its folder ``work``; ``options`` become
    ``--cfg-options``.
    """
    environment = os.environ | {
        'UNIFORMER_DATA': str(data_root),
        'CUDA_VISIBLE_DEVICES': '',
        # Two threads for so little work wait for each other where the cores are busy.
        'OMP_NUM_THREADS': '1',
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
    }
    pairs = [f'{key}={value}' for key, value in options.items()]
    command = ['mim', verb, package, str(config), *arguments, '--work-dir', str(data_root / 'work')]
    done = subprocess.run(
        [*command, '--cfg-options', *pairs],
        cwd=data_root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def read_scalars(data_root: Path) -> list[dict]:
    """Everything that the training runs in ``data_root/work`` logged, in order."""
    files = sorted((data_root / 'work').glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
