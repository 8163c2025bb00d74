# SPDX-License-Identifier: Apache-2.0
"""The models that know nothing, from the tests of prediction."""

from ..inference.conftest import checkpoints, untrained, world

__all__ = ['checkpoints', 'untrained', 'world']
