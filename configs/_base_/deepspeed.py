# SPDX-License-Identifier: Apache-2.0
"""Gradients and optimizer state shared out over all GPUs by DeepSpeed (ZeRO 2), in bfloat16.

mmengine's FlexibleRunner; the leaf sets ``train_micro_batch_size_per_gpu``, replaces the optimizer
wrapper and names what computes in float32. bfloat16 because DeepSpeed's fp16 autocast clips before
it divides by its loss scale. DeepSpeed is not among this project's requirements, and mmengine
0.10.7 needs it below 0.19. See docs/scale.md.
"""

runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    config=dict(torch_autocast=dict(enabled=True, dtype='bfloat16')),
    zero_optimization=dict(stage=2, overlap_comm=True),
)
