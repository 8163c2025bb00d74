# SPDX-License-Identifier: Apache-2.0
"""The operations out of PyTorch's own operators: the form that runs everywhere."""
