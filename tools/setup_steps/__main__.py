# SPDX-License-Identifier: Apache-2.0
"""The order of the steps. Run it through ``tools/setup_env.py``, which finds a Python that fits."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

# Run as a folder, Python puts the folder itself on the path, not its parent.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setup_steps import mmcv_wheel, preflight
from setup_steps.display import Display
from setup_steps.packages import Pip
from setup_steps.process import SetupError, end_marked_processes, wait
from setup_steps.venv import Environment

ROOT = Path(__file__).resolve().parents[2]
NEW_GIB = 11
"""Measured: 6.4 GiB stay, 2.6 GiB of downloads lie beside them for a while, and pip's cache."""
BUILD_GIB = 2
FIRST_TIME = (
    'a first set-up takes 5 to 9 minutes on two cores, half of them to compile mmcv; it fetches '
    '2.6 GiB (PyTorch is 2.5) and leaves 6.4 GiB in .venv'
)


def main() -> int:
    """Bring ``.venv`` up to date; return the exit status."""
    display = Display()
    environment = Environment(ROOT)
    if environment.is_current():
        display.phase(f'the environment in {environment.folder.name} is up to date')
        return 0
    try:
        with environment.locked(display):
            try:
                set_up(environment, display)
            finally:
                end_marked_processes(environment.folder)
    except SetupError as error:
        print(f'\nset-up: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up: interrupted; run it again to go on where it stopped', file=sys.stderr)
        return 130
    return 0


def set_up(environment: Environment, display: Display) -> None:
    """All steps, each of which does only what is missing."""
    if end_marked_processes(environment.folder):
        display.phase('ended what an interrupted set-up had left running')
    key = environment.key()
    pip = Pip(environment)
    works = environment.works()
    cache = mmcv_wheel.cache_folder()
    check(environment, display, works, pip, cache)
    if not works:
        display.phase(FIRST_TIME)
        display.phase(f'making .venv with Python {platform.python_version()}')
        environment.create()
    environment.prepare_folders()
    for name in environment.drop_half_installed():
        display.phase(f'{name} was not completely installed and will be again')

    display.phase(f'installing PyTorch {pip.version("torch")} and what mmcv is built with')
    wait(display, [pip.itself(), pip.build_packages()])
    target, reason = mmcv_wheel.target_of(environment, pip.version('mmcv'))
    the_rest = [pip.lock(), pip.from_source()]
    wheel = mmcv_wheel.cached_wheel(cache, target.key)
    has_mmcv = mmcv_wheel.is_installed(environment, target)
    if has_mmcv or wheel is not None:
        display.phase('installing the toolboxes')
        wait(display, the_rest)
    else:
        wheel = build_mmcv(environment, display, target, reason, the_rest)
    if not has_mmcv:
        display.phase(f'installing mmcv from {wheel}')
        wait(display, [pip.wheel(wheel)])
        environment.write_stamp(mmcv=target.key)
    shutil.rmtree(environment.mmcv_build, ignore_errors=True)

    display.phase('installing uniformer_mm, editable')
    wait(display, [pip.this_package()])
    # setuptools leaves it beside the sources; what counts is what is registered in .venv.
    shutil.rmtree(ROOT / 'uniformer_mm.egg-info', ignore_errors=True)
    shutil.rmtree(environment.temporary, ignore_errors=True)

    display.phase('checking and repairing the environment')
    doctor = [str(environment.folder / 'bin' / 'uniformer-mm'), 'doctor', '--fix']
    if subprocess.run(doctor, env=environment.doctor_variables()).returncode != 0:
        raise SetupError('the doctor found what it cannot repair; its lines say what helps')
    environment.finish(key)
    display.phase('the environment is ready')


def check(environment: Environment, display: Display, works: bool, pip: Pip, cache: Path) -> None:
    """Stop before work where something is missing.

    Raises:
        SetupError: one line per missing thing, with what to install.
    """
    display.phase('checking what must be there')
    problems = []
    if not works:
        problems += [preflight.check_venv()]
    fetched = works and any((environment.folder / 'lib').glob('python3*/site-packages/torch'))
    problems += [preflight.check_disk(ROOT, BUILD_GIB if fetched else NEW_GIB)]
    if not mmcv_wheel.may_be_cached(cache, pip.version('mmcv'), pip.version('torch')):
        problems += [preflight.check_compiler(environment.folder), preflight.check_headers()]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise SetupError('; '.join(found) if len(found) == 1 else '\n  '.join(['', *found]))


def build_mmcv(
    environment: Environment,
    display: Display,
    target: mmcv_wheel.Target,
    reason: str,
    the_rest: list,
) -> Path:
    """Compile mmcv while the rest is installed; return the wheel in its cache."""
    build = mmcv_wheel.Build(environment, target)
    display.phase(f'fetching mmcv {target.mmcv}')
    build.prepare(display)
    display.phase(f'compiling mmcv {target.mmcv} ({reason}) while the toolboxes are installed')
    wait(display, build.steps(), the_rest)
    return mmcv_wheel.store(build.wheel(), mmcv_wheel.cache_folder(), target.key)


if __name__ == '__main__':
    sys.exit(main())
