# SPDX-License-Identifier: Apache-2.0
"""How mmseg runs, logs and saves; nothing here changes a number."""

default_scope = 'mmseg'
# uniformer:// names of weights, also where a tool reads the weights before it builds the model.
custom_imports = dict(imports=['uniformer_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='uniformer_mm.DurableCheckpointHook', by_epoch=False, interval=4000),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    nonfinite=dict(type='uniformer_mm.NonFiniteLossHook'),
    stop=dict(type='uniformer_mm.StopOnSignalHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
