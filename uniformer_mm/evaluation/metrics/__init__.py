# SPDX-License-Identifier: Apache-2.0
"""What a test measures: metrics that store little, their names and their intervals."""
