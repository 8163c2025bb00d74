# SPDX-License-Identifier: Apache-2.0
"""The tile table and the file of tuned rows."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from uniformer_mm.ops.dispatch import MAX_MLP_CHANNELS, TRITON_DTYPES
from uniformer_mm.ops.torch import depthwise as plain
from uniformer_mm.ops.triton import mlp_tiles, tiles, tuning
from uniformer_mm.ops.triton.tiles import FORWARD, WEIGHT_GRAD, Tile

DEVICE = 'NVIDIA H100 80GB HBM3'


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('UNIFORMER_MM_CACHE', str(tmp_path))
    tiles.tile_for.cache_clear()


@pytest.mark.parametrize('channels', [1, 3, 8, 56, 64, 96, 112, 320, 448, 512])
@pytest.mark.parametrize('row', tiles.TABLE, ids=str)
def test_a_program_is_full_vectors_with_little_padding(row: tuple, channels: int) -> None:
    tile = row[-1]
    lanes, block = tile.block(channels)
    assert lanes * block == tile.vector * tile.warps * 32
    assert lanes & (lanes - 1) == 0 == block & (block - 1), 'Triton needs powers of two'
    padded = -(-channels // block) * block
    assert padded < channels + 8 or padded == 8


def test_every_kernel_has_a_tile() -> None:
    for operation in (FORWARD, WEIGHT_GRAD):
        for kernel in ((1, 1), (3, 3), (5, 5), (9, 9), (3, 3, 3), (1, 81), (3, 1, 1)):
            assert tiles.default_tile(operation, (9, 0), kernel, 2).warps


def test_an_architecture_can_have_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Tile(1, 4, 2, 4)
    table = ((FORWARD, (8, 0), 3, 4, own), *tiles.TABLE)
    monkeypatch.setattr(tiles, 'TABLE', table)
    assert tiles.default_tile(FORWARD, (8, 0), (3, 3), 4) == own
    assert tiles.default_tile(FORWARD, (8, 0), (3, 3), 2) != own
    assert tiles.default_tile(FORWARD, (9, 0), (3, 3), 4) != own


def test_tuned_rows_are_kept_per_device_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    device, kernel = torch.device('cuda', 0), (5, 5, 5)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: DEVICE)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (9, 0))
    before = tiles.tile_for(FORWARD, device, kernel, 64, torch.bfloat16)
    assert before == tiles.default_tile(FORWARD, (9, 0), kernel, 2)

    tuned = {tiles.key(FORWARD, kernel, 64, torch.bfloat16): Tile(1, 2, 2, 8)}
    path = tiles.save_tuned(DEVICE, tuned)
    other = {tiles.key(FORWARD, kernel, 128, torch.bfloat16): Tile(3, 4, 2, 8)}
    tiles.save_tuned(DEVICE, other)
    assert path.name == 'tiles_NVIDIA_H100_80GB_HBM3.json'
    assert tiles.load_tuned(DEVICE) == tuned | other
    assert tiles.load_tuned('another') == {}
    assert tiles.tile_for(FORWARD, device, kernel, 64, torch.bfloat16) == Tile(1, 2, 2, 8)
    assert tiles.tile_for(FORWARD, device, kernel, 64, torch.float16) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name], 'temporary files remain'


def test_rows_of_another_version_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.save_tuned(DEVICE, {'forward 3x3 64 float32': Tile(1, 1, 1, 1)})
    monkeypatch.setattr(tiles, 'CACHE_VERSION', tiles.CACHE_VERSION + 1)
    assert tiles.load_tuned(DEVICE) == {}


@pytest.mark.parametrize('text', ['{', '[]', '{"version": 1, "tiles": {"a": {"rows": 1}}}'])
def test_a_broken_file_is_named(text: str) -> None:
    path = tiles.cache_file(DEVICE)
    path.write_text(text)
    with pytest.raises(ValueError, match=r'tiles_NVIDIA.* does not hold tuned tiles .* delete it'):
        tiles.load_tuned(DEVICE)


@pytest.mark.parametrize('dtype', TRITON_DTYPES, ids=str)
@pytest.mark.parametrize('operation', ['forward', 'add', 'input_grad', 'weight_grad'])
def test_every_mlp_kernel_has_a_tile(operation: str, dtype: torch.dtype) -> None:
    for channels in (1, 64, 65, MAX_MLP_CHANNELS):
        tile = mlp_tiles.mlp_tile(operation, channels, dtype.itemsize)
        for block in (tile.block_n, tile.block_h):
            assert block & (block - 1) == 0, 'Triton needs powers of two'
            assert block >= mlp_tiles.MIN_BLOCK


RIGHT, FAST, WRONG, NOT_A_NUMBER, TOO_LARGE, BROKEN, IN_TABLE = (
    Tile(1, 1, 1, 2**n) for n in range(7)
)
CANDIDATES = [TOO_LARGE, WRONG, NOT_A_NUMBER, RIGHT, BROKEN, FAST]


class Warnings(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def warnings() -> list[str]:
    logger, handler = logging.getLogger('uniformer_mm.ops.triton.tuning'), Warnings()
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)


def launched(right: Callable[..., Tensor | tuple[Tensor, Tensor]]) -> Callable:
    """A launcher whose tiles do what their names say."""
    from triton.runtime.errors import OutOfResources

    def launch(*arguments: object) -> Tensor | tuple[Tensor, Tensor]:
        *arguments, tile = arguments
        if tile == TOO_LARGE:
            raise OutOfResources(300, 255, 'registers')
        if tile == BROKEN:
            raise RuntimeError('PassManager::run failed')
        found = right(*arguments)
        factor = {WRONG: 1.1, NOT_A_NUMBER: float('nan')}.get(tile, 1)
        return found * factor if isinstance(found, Tensor) else tuple(y * factor for y in found)

    return launch


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """Stand-ins for the kernels; the tiles that a stand-in for the clock has timed, in order."""
    pytest.importorskip('triton', reason='the package triton is not installed')
    from uniformer_mm.ops.triton import depthwise as triton_depthwise

    for name in ('forward', 'weight_grad'):
        monkeypatch.setattr(triton_depthwise, name, launched(getattr(plain, name)))
    monkeypatch.setattr(tuning, 'candidates', lambda *_: CANDIDATES)
    monkeypatch.setattr(tuning, 'default_tile', lambda *_: IN_TABLE)
    return []


def tune(operation: str, timed: list[Tile]) -> dict[Tile, float]:
    def measure(call: Callable[[], Tensor]) -> float:
        timed.append(call.args[0])
        return {FAST: 1.0, RIGHT: 2.0}.get(call.args[0], 3.0)

    shape, kernel = (2, 5, 6, 8), (3, 3)
    return tuning.tune(operation, shape, kernel, torch.bfloat16, device='cpu', measure=measure)


@pytest.mark.parametrize('operation', [FORWARD, WEIGHT_GRAD])
def test_tuning_leaves_out_tiles_that_fail_or_are_wrong(
    operation: str, timed: list[Tile], warnings: list[str]
) -> None:
    assert tune(operation, timed) == {FAST: 1.0, RIGHT: 2.0, IN_TABLE: 3.0}
    assert timed == [IN_TABLE, RIGHT, FAST]
    assert tiles.load_tuned('cpu') == {f'{operation} 3x3 8 bfloat16': FAST}
    reasons = {TOO_LARGE: 'registers', WRONG: 'off by', NOT_A_NUMBER: 'nan', BROKEN: 'PassManager'}
    assert len(warnings) == len(reasons)
    for tile, reason in reasons.items():
        assert any(f'{tile} is left out' in text and reason in text for text in warnings), tile


def test_tuning_says_if_no_tile_is_left(
    timed: list[Tile], warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, 'candidates', lambda *_: [WRONG])
    monkeypatch.setattr(tuning, 'default_tile', lambda *_: TOO_LARGE)
    with pytest.raises(RuntimeError, match=r'no tile of forward .* ran and was right'):
        tune(FORWARD, timed)
    assert tiles.load_tuned('cpu') == {}
    assert len(warnings) == 2
