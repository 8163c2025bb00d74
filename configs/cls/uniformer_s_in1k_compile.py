# SPDX-License-Identifier: Apache-2.0
"""Option: uniformer_s_in1k.py with its backbone compiled by torch.compile.

It changes the speed and, but for rounding, nothing else (docs/performance.md). Not run here::

    mim train mmpretrain configs/cls/uniformer_s_in1k_compile.py --launcher pytorch --gpus 8
"""

_base_ = './uniformer_s_in1k.py'

# This list replaces that of the base, which holds the tracked average of the weights.
custom_hooks = [*_base_.custom_hooks, dict(type='uniformer_mm.CompileHook')]
