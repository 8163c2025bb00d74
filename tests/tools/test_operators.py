# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, and does not report what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from tools.benchmark import comparisons, operators
from uniformer_mm.ops import depthwise_conv
from uniformer_mm.ops.triton import tuning
from uniformer_mm.ops.triton.tiles import Tile

QUICK = ['--device', 'cpu', '--tiny', '--threads', '1', '--repeats', '2', '--seconds', '0.0001']


def test_reports_every_problem_with_its_spread(tmp_path) -> None:
    path = tmp_path / 'rows.json'
    arguments = [*QUICK, '--dtype', 'float32', 'bfloat16', '--train', '--json', str(path)]
    assert operators.main(arguments) == 0
    rows = json.loads(path.read_text())['rows']
    assert len(rows) == 8
    assert {row['kernel'] for row in rows} == {'3x3', '5x5', '3x3x3', '5x5x5'}
    for row in rows:
        assert row['refused'] is None
        assert row['speedup'] == pytest.approx(row['official_ms'] / row['ours_ms'])
        assert row['ours_low'] <= row['ours_ms'] <= row['ours_high']


def test_refuses_a_wrong_result(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x, weight, bias, **kwargs):
        return depthwise_conv(x, weight.flip(-1), bias, **kwargs)

    monkeypatch.setattr(operators, 'depthwise_conv', wrong)
    path = tmp_path / 'rows.json'
    assert operators.main([*QUICK, '--json', str(path)]) == 1
    for row in json.loads(path.read_text())['rows']:
        assert 'output is off by' in row['refused']
        assert 'ours_ms' not in row


@pytest.mark.parametrize('train', [[], ['--train']], ids=['call', 'train'])
def test_compares_the_mlp_and_what_stands_between_products(train: list, tmp_path) -> None:
    path = tmp_path / 'rows.json'
    arguments = ['--operations', 'mlp', 'rows', '--dtype', 'float32', 'bfloat16', *train]
    assert operators.main([*QUICK, *arguments, '--json', str(path)]) == 0
    rows = json.loads(path.read_text())['rows']
    assert len(rows) == 2 * 2 * (2 + 9)
    for row in rows:
        assert row['refused'] is None
        assert row['speedup'] == pytest.approx(row['pytorch_ms'] / row['ours_ms'])
        assert ('of_copy' in row) == (row['operation'] not in ('mlp', 'mlp_add'))


def test_refuses_wrong_results_of_every_operation(tmp_path, monkeypatch) -> None:
    class Wrong:
        """The implementation, but that some functions take another input."""

        def __init__(self, right: ModuleType, change: Callable, *names: str) -> None:
            self.right, self.change, self.names = right, change, names

        def __getattr__(self, name: str) -> Callable:
            function = getattr(self.right, name)
            if name not in self.names:
                return function
            return lambda x, *rest: function(self.change(x), *rest)

    mlp, rows = comparisons.mlp.implementation, comparisons.rows.implementation
    names = ('layer_standardise', 'column_sum', 'add_branch')
    monkeypatch.setattr(
        comparisons.mlp, 'implementation', lambda *a: Wrong(mlp(*a), lambda x: x.flip(0), 'forward')
    )
    monkeypatch.setattr(
        comparisons.rows,
        'implementation',
        lambda *a: Wrong(rows(*a), lambda x: x.roll(1, 1), *names),
    )
    path = tmp_path / 'rows.json'
    arguments = ['--operations', 'mlp', 'rows', '--json', str(path)]
    assert operators.main([*QUICK, *arguments]) == 1
    rows = json.loads(path.read_text())['rows']
    wrong = {row['operation'] for row in rows if row['refused']}
    assert wrong == {'mlp', 'mlp_add', *names}


def test_bytes_of_a_memory_bound_operation_are_counted() -> None:
    shape, dtype = (2, 3, 5, 8), torch.bfloat16
    found = {c.operation: c for c in comparisons.row_comparisons(shape, dtype, 'cpu', 'auto')}
    elements, channels = 2 * 3 * 5 * 8, 8
    assert found['add_branch'].nbytes == elements * (4 + 2 + 4)
    assert found['column_sum'].nbytes == elements * 2 + channels * 4
    assert found['branch_grad'].nbytes == elements * (4 + 2) + channels * 4


def test_problems_are_those_of_the_network() -> None:
    args = operators.parse(['--device', 'cpu', '--work', 'video', '--dtype', 'bfloat16'])
    shapes = [(problem.shape, problem.kernel[0]) for problem in operators.problems(args)]
    assert shapes == [
        ((1, 8, 56, 56, 64), 3),
        ((1, 8, 56, 56, 64), 5),
        ((1, 8, 28, 28, 128), 3),
        ((1, 8, 28, 28, 128), 5),
        ((1, 8, 14, 14, 320), 3),
        ((1, 8, 7, 7, 512), 3),
    ]


def test_tuning_goes_on_after_an_operation_without_a_tile(monkeypatch) -> None:
    fast, slow = Tile(1, 1, 1, 1), Tile(1, 1, 1, 2)

    def tune(operation: str, *_: object) -> dict[Tile, float]:
        if operation == 'forward':
            raise RuntimeError('no tile ran')
        return {fast: 1.0, slow: 3.0}

    monkeypatch.setattr(tuning, 'tune', tune)
    args = operators.parse(['--device', 'cpu', '--tiny'])
    rows = operators.tune(args)
    assert [row['operation'] for row in rows] == ['forward', 'weight_grad'] * 4
    assert {row['refused'] for row in rows[::2]} == {'no tile ran'}
    for row in rows[1::2]:
        assert (row['tile'], row['ms'], row['slowest_ms']) == (str(fast), 1.0, 3.0)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--device', 'cpu', '--tune'], 'needs a GPU'),
        (['--device', 'cpu', '--processor-time', '--threads', '2'], 'one thread'),
    ],
)
def test_says_what_does_not_go_together(arguments: list, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        operators.parse(arguments)
    assert message in capsys.readouterr().err
