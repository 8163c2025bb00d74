# SPDX-License-Identifier: Apache-2.0
"""The small member of the family that every quickstart trains: 2 CPU cores, minutes.

Four blocks in stage 3, so hybrid attention has both its windows (blocks 1-3) and its global block.
Use it as ``arch=_base_.quickstart_arch``.
"""

quickstart_arch = dict(depths=(1, 1, 4, 1), dims=(32, 64, 128, 256), head_dim=32)
