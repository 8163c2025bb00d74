# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Kinetics-600, 32 frames at interval 4, from ImageNet-1K, on four nodes.

Row vid/k600_b_32x4: top-1 84.5 with 4 clips x 1 crop on 28,736 validation videos (published),
49.9 M parameters, 258.3 GMACs per view. 84.5 is the run on four nodes, whose weights were released;
the paper's abstract says 84.8.

Train (published with 4 nodes x 8 GPUs x 4 videos, each of which enters twice), then test on 4
clips; the published weights are ``uniformer://base_k600_32x4``::

    mim train mmaction2 configs/video/uniformer_b_32x4_k600.py \\
        --launcher slurm --gpus 32 --gpus-per-node 8 --partition PARTITION
    mim test mmaction2 configs/video/uniformer_b_32x4_k600.py --checkpoint CHECKPOINT

On one node of 8 GPUs: ``--auto-scale-lr`` for the learning rate, and the two ends of its schedule
by ``--cfg-options param_scheduler.warmup_lr=1e-6 param_scheduler.min_lr=1e-6``.
"""

_base_ = [
    '../_base_/video/kinetics600.py',
    '../_base_/video/dense_32x4.py',
    '../_base_/video/schedule_110e.py',
    '../_base_/video/runtime.py',
]

# The official code multiplies all rates by the number of nodes and divides a node's batch by its
# GPUs.
nodes = 4

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://base_in1k'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=nodes * 1e-4))
param_scheduler = dict(warmup_lr=nodes * 1e-6, min_lr=nodes * 1e-6)
train_dataloader = dict(batch_size=32 // 8, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
auto_scale_lr = dict(base_batch_size=nodes * 32)
