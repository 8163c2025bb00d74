# SPDX-License-Identifier: Apache-2.0
"""How mmpretrain runs, logs and saves; nothing here changes a number."""

default_scope = 'mmpretrain'
# uniformer:// names of weights, also where a tool reads the weights before it builds the model.
custom_imports = dict(imports=['uniformer_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='uniformer_mm.DurableCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='accuracy/top1',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    nonfinite=dict(type='uniformer_mm.NonFiniteLossHook'),
    stop=dict(type='uniformer_mm.StopOnSignalHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'INFO'
load_from = None
resume = False

val_cfg = dict()
test_cfg = dict()
