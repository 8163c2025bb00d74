# SPDX-License-Identifier: Apache-2.0
"""The reference network under its old name."""

from tools.reference.uniformer import *  # noqa: F403
