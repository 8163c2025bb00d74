# SPDX-License-Identifier: Apache-2.0
"""A test run as one HTML page that a person can read."""

from .build import render, write_report

__all__ = ['render', 'write_report']
