# SPDX-License-Identifier: Apache-2.0
"""The error of one input among many."""


class UnreadableError(ValueError):
    """An input that cannot be predicted; the message names it and says why."""
