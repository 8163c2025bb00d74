# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps, UniFormer-S, COCO keypoints, 256x192.

Row pose/s_256x192, published on val2017: AP 74.0, AP50 90.3, AP75 82.2, AP-M 66.8, AP-L 76.7, AR
79.5 (25.2 M parameters, 4.7 GMACs).

Train (published with 8 GPUs x 128 persons), then test; the published weights are
``uniformer://top_down_256x192_global_small``::

    mim train mmpose configs/pose/td_hm_uniformer_s_256x192.py
    mim train mmpose configs/pose/td_hm_uniformer_s_256x192.py --launcher pytorch --gpus 8
    mim test mmpose configs/pose/td_hm_uniformer_s_256x192.py --checkpoint CHECKPOINT

Without a GPU add ``--cfg-options optim_wrapper.type=OptimWrapper`` (fp32: mmengine's fp16 needs a
GPU). From random weights: ``--cfg-options model.backbone.init_cfg=None``. With another batch size:
``--auto-scale-lr``. For lack of a detector's boxes, annotated ones:
``val_dataloader.dataset.bbox_file=None``. All this goes for the other sizes too.

BatchNorm in the backbone trains and nothing is frozen, as published.
"""

_base_ = [
    '../_base_/pose/simple_baseline.py',
    '../_base_/pose/coco_256x192.py',
    '../_base_/pose/schedule_210e.py',
    '../_base_/pose/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
    head=dict(decoder=_base_.codec),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=8 * 128)
