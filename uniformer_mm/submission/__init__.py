# SPDX-License-Identifier: Apache-2.0
"""Leaderboard files: written, checked without a network, and scored where the labels are public.

A *writer* turns saved predictions into the file that a benchmark asks for; a *check* finds
everything that is wrong with such a file, whoever made it; a *score* computes the benchmark's
metric from the same file and the public labels. See ``docs/submission.md``.
"""
