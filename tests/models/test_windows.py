# SPDX-License-Identifier: Apache-2.0
"""Windows of a map against a loop over them; how long their rows are remembered."""

from __future__ import annotations

import itertools

import pytest
import torch

from uniformer_mm.models import UniFormer2d, windows
from uniformer_mm.models.windows import Windows, find_rows, recent, window_rows

SIZES = [((2, 3, 5, 7), 4), ((1, 1, 4, 8), 4), ((2, 1, 3, 2), 4), ((1, 2, 6, 5), 3)]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, '_recent', {})


def by_hand(x_BTHWC: torch.Tensor, w: int) -> torch.Tensor:
    B, T, H, W, C = x_BTHWC.shape
    found = []
    for b, top, left in itertools.product(range(B), range(0, H, w), range(0, W, w)):
        window = x_BTHWC.new_zeros(T, w, w, C)
        part = x_BTHWC[b, :, top : top + w, left : left + w]
        window[:, : part.shape[1], : part.shape[2]] = part
        found.append(window.flatten(0, 2))
    return torch.stack(found)


@pytest.mark.parametrize(('size', 'side'), SIZES)
@pytest.mark.parametrize('form', ['eager', 'traced', 'compiled'])
def test_windows_and_back(
    size: tuple, side: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, 'is_recorded', lambda: form != 'eager')
    monkeypatch.setattr(windows, 'is_compiling', lambda: form == 'compiled')
    x = torch.randn(*size, 3, dtype=torch.float64)
    cut = Windows(x, side)
    expected = by_hand(x, side)
    assert torch.equal(cut.split(x), expected)
    # What lies in the padding is lost on the way back.
    noisy = torch.where(expected == 0, torch.randn(()).double(), expected)
    assert torch.equal(cut.join(noisy), x)


@pytest.mark.parametrize(('size', 'side'), SIZES)
@pytest.mark.parametrize('compiled', [False, True])
def test_gradients_to_the_second_order(
    size: tuple, side: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, 'is_compiling', lambda: compiled)
    x = torch.randn(*size, 2, dtype=torch.float64, requires_grad=True)
    cut = Windows(x, side)

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        return cut.join(cut.split(x).cumsum(1) ** 2)

    assert torch.autograd.gradcheck(there_and_back, x)
    assert torch.autograd.gradgradcheck(there_and_back, x)


def test_rows_made_in_inference_serve_a_training_step_later() -> None:
    model = UniFormer2d(
        dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), head_dim=8),
        attention='window',
        window_size=3,
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model(x)
    sum(y.sum() for y in model(x)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_rows_that_somebody_holds_are_not_made_again() -> None:
    def rows(height: int) -> windows.WindowRows:
        return window_rows(1, (1, height, 5), 4, torch.device('cpu'))

    rows(5)
    held = recent()
    (first,) = held
    for height in range(6, 6 + windows.MAX_RECENT):
        rows(height)
    assert len(recent()) == windows.MAX_RECENT
    assert all(first is not one for one in recent())
    assert rows(5) is first
    assert rows(6) is not rows(7)


def test_rows_on_a_device_are_those_of_the_arithmetic() -> None:
    size, device = (2, 5, 7), torch.device('cpu')
    held, made = window_rows(2, size, 3, device), find_rows(2, size, 3, device)
    assert torch.equal(held.places, made.places)
    assert torch.equal(held.owners, made.owners)
    assert torch.equal(held.padding, made.padding.nonzero()[:, 0])
