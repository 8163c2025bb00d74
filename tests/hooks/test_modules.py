# SPDX-License-Identifier: Apache-2.0
"""Hooks that change parts of a model name the parts that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

import uniformer_mm  # noqa: F401  (registers the types)

from .helpers import train


@pytest.mark.parametrize('hook', ['CompileHook'])
def test_an_unknown_module_is_named(hook: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'neck' is not a module .*'backbone'"):
        train(tmp_path, [dict(type=f'uniformer_mm.{hook}', modules=('neck',))])
