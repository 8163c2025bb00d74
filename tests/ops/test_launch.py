# SPDX-License-Identifier: Apache-2.0
"""How kernels are found and launched; the driver is a stand-in, so no GPU is needed."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

pytest.importorskip('triton', reason='the package triton is not installed')

import uniformer_mm.ops.triton
from uniformer_mm.ops.triton import launch
from uniformer_mm.ops.triton.launch import MAX_INT32, Constants, Kernel


class StandIn:
    """A Triton function that notes how it is called."""

    arg_names = ('x', 'y', 'rows', 'eps', 'C', 'FLAG', 'BLOCK')

    def __init__(self) -> None:
        self.compiled, self.launched = [], []

    @staticmethod
    def fn() -> None:
        """What it is made of."""

    def __getitem__(self, grid: tuple) -> object:
        def run(*args, **constants) -> StandIn.Compiled:
            self.compiled.append((grid, args, constants))
            return StandIn.Compiled(self)

        return run

    class Compiled:
        """Its compiled form, launched as in Triton's tutorials."""

        def __init__(self, owner: StandIn) -> None:
            self.owner = owner

        def __getitem__(self, grid: tuple) -> object:
            return lambda *args: self.owner.launched.append((grid, args))


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(launch, 'triton_is_interpreted', lambda: False)
    return StandIn()


def aligned(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.zeros(*shape, dtype=dtype)
    assert x.data_ptr() % 16 == 0
    return x


def test_the_second_call_is_a_lookup(function: StandIn) -> None:
    kernel = Kernel(function, ['FLAG'])
    x, y, constants = aligned(4, 4), aligned(4, 4), Constants(BLOCK=8, C=4, num_warps=2)
    kernel.launch(0, (3,), (x, y), (4, 0.5), constants, (True,))
    expected = {'BLOCK': 8, 'C': 4, 'num_warps': 2, 'FLAG': True}
    assert function.compiled == [((3,), (x, y, 4, 0.5), expected)]
    z = aligned(8, 4)
    kernel.launch(0, (5, 2), (z, y), (8, 0.25), constants, (True,))
    assert len(function.compiled) == 1
    # Constants follow in the order of the source; options are part of what was compiled.
    assert function.launched == [((5, 2, 1), (z, y, 8, 0.25, 4, True, 8))]


@pytest.mark.parametrize('what', ['flag', 'dtype', 'constants', 'device', 'address', 'number'])
def test_whatever_a_kernel_depends_on_is_compiled_again(function: StandIn, what: str) -> None:
    kernel = Kernel(function, ['FLAG'])
    x, constants = aligned(4, 4), Constants(C=4, BLOCK=8)
    kernel.launch(0, (3,), (x, x), (4, 0.5), constants, (True,))
    index, tensors, numbers, flags = 0, (x, x), (4, 0.5), (True,)
    if what == 'flag':
        flags = (False,)
    elif what == 'dtype':
        tensors = x, aligned(4, 4, dtype=torch.bfloat16)
    elif what == 'constants':
        constants = Constants(C=4, BLOCK=8)
    elif what == 'device':
        index = 1
    elif what == 'address':
        tensors = x, aligned(20)[1:17]
    else:
        numbers = MAX_INT32 + 1, 0.5
    for _ in range(2):
        kernel.launch(index, (3,), tensors, numbers, constants, flags)
    # An odd address and a huge number are not remembered: they share their key with ordinary ones.
    times = 2 if what in ('address', 'number') else 1
    assert len(function.compiled) == 1 + times
    assert len(function.launched) == 2 - times


def test_old_releases_take_other_arguments(
    function: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, 'CAN_REMEMBER', False)
    kernel, x, constants = Kernel(function), aligned(4), Constants(C=4, FLAG=0, BLOCK=8)
    for _ in range(2):
        kernel.launch(0, (3,), (x, x), (4, 0.5), constants, ())
    assert len(function.compiled) == 2
    assert not function.launched


@pytest.fixture(scope='module')
def arrived(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What ``launches.py`` hears: each kernel, launched as Triton does it, and then as we do."""
    # As Triton looks for one; where it is installed, on Linux, README.md asks for a compiler.
    compiler = os.environ.get('CC') or shutil.which('gcc') or shutil.which('clang')
    assert compiler, 'no C compiler on the PATH, which README.md asks for'
    folder = tmp_path_factory.mktemp('driver')
    library = folder / 'libcuda.so.1'
    source = Path(__file__).with_name('deaf_driver.c')
    command = [compiler, '-shared', '-fPIC', f'-Wl,-soname,{library.name}', '-o', library, source]
    subprocess.run(command, check=True)
    # The name that older releases link with.
    (folder / 'libcuda.so').symlink_to(library.name)
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'} | {
        'TRITON_LIBCUDA_PATH': str(folder),
        'PYTHONPATH': os.pathsep.join(map(str, (ROOT, ROOT / 'tools'))),
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name('launches.py'), library],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_arrives_at_the_driver_as_triton_would_send_it(arrived: list[dict]) -> None:
    """Through Triton's own launcher: the function, the grid, all addresses and numbers."""
    for launched in arrived:
        _, usual, ours = launched['launches']
        assert ours == usual, launched['kernel']
        assert ours['grid'] == launched['grid']
        assert ours['block'] == [launched['threads'], 1, 1]
        assert ours['params'] == pytest.approx(launched['params'], rel=1e-7, abs=0)


def test_no_kernel_is_left_out(arrived: list[dict]) -> None:
    modules = [m.name for m in pkgutil.iter_modules(uniformer_mm.ops.triton.__path__)]
    kernels = {
        name
        for module in modules
        for name, value in vars(
            importlib.import_module(f'uniformer_mm.ops.triton.{module}')
        ).items()
        if isinstance(value, Kernel)
    }
    assert kernels
    assert {launched['kernel'] for launched in arrived} == kernels
