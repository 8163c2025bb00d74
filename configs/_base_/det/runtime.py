# SPDX-License-Identifier: Apache-2.0
"""How mmdet runs, logs and saves; nothing here changes a number."""

default_scope = 'mmdet'
# uniformer:// names of weights, also where a tool reads the weights before it builds the model.
custom_imports = dict(imports=['uniformer_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='uniformer_mm.DurableCheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    nonfinite=dict(type='uniformer_mm.NonFiniteLossHook'),
    stop=dict(type='uniformer_mm.StopOnSignalHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
