# SPDX-License-Identifier: Apache-2.0
"""What ``tools/benchmark.py`` measures, how, and its figures."""
