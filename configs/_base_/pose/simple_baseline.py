# SPDX-License-Identifier: Apache-2.0
"""SimpleBaseline (arXiv 1804.06208) on UniFormer: three deconvolutions and one heatmap per joint.

Only the last map is used, so only its norm exists and no parameter goes without a gradient.
The official SyncBN setting never reaches the deconvolutions, which train with plain BatchNorm.
"""

model = dict(
    type='TopdownPoseEstimator',
    backbone=dict(
        type='uniformer_mm.UniFormer2d',
        attention='global',
        out_indices=(3,),
        out_norm='ln',
    ),
    head=dict(
        type='HeatmapHead',
        in_channels=512,
        out_channels=17,
        deconv_out_channels=(256, 256, 256),
        deconv_kernel_sizes=(4, 4, 4),
        final_layer=dict(kernel_size=1),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
    ),
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True),
)
