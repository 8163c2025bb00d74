# SPDX-License-Identifier: Apache-2.0
"""How a test runs: its configuration, its process, its loop and what it keeps."""
