# SPDX-License-Identifier: Apache-2.0
"""The network as its authors' code computes it, for tests and benchmarks to compare with."""
