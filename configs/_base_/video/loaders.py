# SPDX-License-Identifier: Apache-2.0
"""How videos become batches; data sets add their files, leaf configs batch size and pipelines.

Batches are videos per GPU: each video enters training twice (``AugmentedCopies``), and as many
times as there are views in tests.
"""

train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='repeat_pseudo_collate'),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)

# --auto-scale-lr multiplies lr by (GPUs x videos per GPU) / this.
auto_scale_lr = dict(enable=False)
