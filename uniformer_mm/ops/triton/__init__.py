# SPDX-License-Identifier: Apache-2.0
"""The operations as Triton kernels, one file for each; needs the package ``triton``."""
