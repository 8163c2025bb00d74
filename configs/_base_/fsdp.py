# SPDX-License-Identifier: Apache-2.0
"""Parameters, gradients and optimizer state shared out over all GPUs (FSDP); add it as a base.

mmengine's FlexibleRunner; every block of the backbone is one unit, the rest of the model the last.
Checkpoints are whole ('full'), so they test and convert as any other. Not for mmpose, whose
tools/train.py knows no ``runner_type``. In fp16 the leaf's optimizer wrapper must be
``uniformer_mm.ShardedAmpOptimWrapper``. See docs/scale.md.
"""

runner_type = 'FlexibleRunner'
strategy = dict(
    type='uniformer_mm.ResumableFSDPStrategy',
    state_dict_cfg='full',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        auto_wrap_policy='uniformer_mm.wrap_blocks',
        use_orig_params=True,
    ),
)
