# SPDX-License-Identifier: Apache-2.0
"""Registered data transforms that the toolboxes lack; no toolbox is imported."""

from . import pose, video

__all__ = ['pose', 'video']
