# SPDX-License-Identifier: Apache-2.0
"""Scores of videos: result files of Kinetics and of Something-Something V2."""
