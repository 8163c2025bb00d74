# SPDX-License-Identifier: Apache-2.0
"""Scale: uniformer_b_16x4_k400.py under DeepSpeed (ZeRO 2), in bfloat16 instead of fp16.

Not run on GPUs here::

    mim train mmaction2 configs/video/uniformer_b_16x4_k400_deepspeed.py --launcher pytorch --gpus 8
"""

_base_ = ['./uniformer_b_16x4_k400.py', '../_base_/deepspeed.py']

# DeepSpeed clips by itself; its optimizer wrapper takes no clip_grad.
strategy = dict(train_micro_batch_size_per_gpu=40 // 8, gradient_clipping=20.0)
optim_wrapper = dict(
    _delete_=True,
    type='DeepSpeedOptimWrapper',
    optimizer=dict(type='AdamW', lr=1.25e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
# mmaction2 measures accuracy in NumPy, which has no bfloat16.
custom_hooks = [dict(type='uniformer_mm.Float32ModulesHook', modules=('cls_head',))]
