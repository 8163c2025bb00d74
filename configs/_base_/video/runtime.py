# SPDX-License-Identifier: Apache-2.0
"""How mmaction2 runs, logs and saves; nothing here changes a number."""

default_scope = 'mmaction'
# uniformer:// names of weights, also where a tool reads the weights before it builds the model.
custom_imports = dict(imports=['uniformer_mm'], allow_failed_imports=False)

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, ignore_last=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='uniformer_mm.DurableCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='acc/top1',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Each GPU keeps its own BatchNorm statistics; they are averaged after each epoch, so that all
    # GPUs evaluate one model.
    sync_buffers=dict(type='SyncBuffersHook'),
    # For --show-dir and --show; mmaction2's own hook takes clips of one view in another layout.
    visualization=dict(type='uniformer_mm.ClipVisualizationHook', enable=False),
    nonfinite=dict(type='uniformer_mm.NonFiniteLossHook'),
    stop=dict(type='uniformer_mm.StopOnSignalHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='ActionVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False

val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
