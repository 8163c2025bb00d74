# SPDX-License-Identifier: Apache-2.0
"""Option: uniformer_s_16x4_k400.py in bfloat16 instead of fp16, on a GPU or the CPU.

No loss scale, and no overflow where attention scores grow large (docs/options.md). Not run here::

    mim train mmaction2 configs/video/uniformer_s_16x4_k400_bf16.py --launcher pytorch --gpus 8
"""

_base_ = './uniformer_s_16x4_k400.py'

# mmaction2 measures accuracy in NumPy, which has no bfloat16: the head computes in float32.
optim_wrapper = dict(type='uniformer_mm.BFloat16OptimWrapper', float32_modules=('cls_head',))
