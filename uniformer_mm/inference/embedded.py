# SPDX-License-Identifier: Apache-2.0
"""The config that mmengine writes into its checkpoints, read without running it."""

from __future__ import annotations

import ast
from typing import Any


def read_embedded(text: str, where: str) -> dict[str, Any]:
    """The names of a dumped config and their values.

    mmengine executes this text; here it is read as data, so that a checkpoint from elsewhere runs
    nothing.

    Args:
        text: Assignments of literals and ``dict(...)``, as ``Config.pretty_text`` has them.
        where: The file, for the message.

    Raises:
        ValueError: It holds anything else.
    """
    try:
        found = {}
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise ValueError
            found[statement.targets[0].id] = _value(statement.value)
    except (ValueError, AttributeError, SyntaxError):
        raise ValueError(
            f'{where}: the config inside is more than values and was not run; name the config that '
            'it was trained with: --model CONFIG.'
        ) from None
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Dict):
        return {
            _value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _call(node: ast.Call) -> Any:
    name = node.func.id
    if name == 'dict' and not node.args and all(pair.arg for pair in node.keywords):
        return {pair.arg: _value(pair.value) for pair in node.keywords}
    if name == 'float' and len(node.args) == 1 and not node.keywords:
        return float(ast.literal_eval(node.args[0]))
    raise ValueError
