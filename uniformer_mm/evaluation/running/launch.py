# SPDX-License-Identifier: Apache-2.0
"""Starting the processes of a test and showing how far they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .loop import read_progress
from .worker import ERROR, RESULT

_MODULE = 'uniformer_mm.evaluation.running.worker'
_TAIL = 12

Advance = Callable[[int, int], None]
"""Called with the number of finished samples and of all."""


class TestFailedError(RuntimeError):
    """A process of the test died; the message has the end of its output."""


def run_test(folder: Path, gpus: int, advance: Advance) -> dict:
    """Test what ``folder`` describes in processes of its own.

    Args:
        folder: Folder with the configuration; output goes to its ``run.log``.
        gpus: GPUs to use; 0 is the CPU. More than one share the samples, and the metrics are
            computed by one process afterwards.
        advance: Shows the progress.

    Returns:
        What the worker says.

    Raises:
        ValueError: The worker refused the request.
        TestFailedError: It died. What was finished is kept.
    """
    single = [sys.executable, '-m', _MODULE, str(folder)]
    if gpus > 1:
        shared = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
        shared += [f'--nproc-per-node={gpus}', '-m', _MODULE, str(folder), '--collect']
        _stream(shared, folder, gpus, advance)
    return _stream(single, folder, min(gpus, 1), advance)


def _stream(command: list[str], folder: Path, gpus: int, advance: Advance) -> dict:
    environment = os.environ | {'PYTHONUNBUFFERED': '1', 'PYTHONWARNINGS': 'ignore'}
    if not gpus:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    result: dict = {}
    error, tail, ranks = '', [], {}
    with (folder / 'run.log').open('a', encoding='utf-8') as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            for line in process.stdout:
                progress = read_progress(line)
                if progress is not None:
                    ranks[progress['shard']] = progress
                    already = sum(entry['already'] for entry in ranks.values())
                    done = sum(entry['done'] for entry in ranks.values())
                    total = sum(entry['total'] for entry in ranks.values())
                    advance(already + done, already + total)
                elif line.startswith(RESULT):
                    result = json.loads(line[len(RESULT) :])
                elif line.startswith(ERROR):
                    error = json.loads(line[len(ERROR) :])
                else:
                    log.write(line)
                    tail = [*tail[1 - _TAIL :], line]
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if error:
        raise ValueError(error)
    if status:
        raise TestFailedError(
            f'the test stopped (exit status {status}; {folder / "run.log"} has all of it); what '
            f'is finished is kept, so the same command goes on.\n{"".join(tail)}'
        )
    return result
