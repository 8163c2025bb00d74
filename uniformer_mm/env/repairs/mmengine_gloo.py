# SPDX-License-Identifier: Apache-2.0
"""mmengine 0.10.7: distributed training on the CPU (backend gloo).

It selects a CUDA device whatever the backend, gives the wrapper a device index, which
DistributedDataParallel refuses for a model on the CPU, and leaves SyncBatchNorm layers in place,
which have no CPU kernel (without a launcher it turns them into BatchNorm, so here too).
"""

from uniformer_mm.env.patching import Edit
from uniformer_mm.env.repair import Repair

_DEVICE_IDS = "[int(os.environ['LOCAL_RANK'])]"


def _guard_set_device(before: str, indent: str = '        ') -> tuple[str, str]:
    """Guard the ``torch.cuda.set_device`` that follows the text `before`."""
    call = f'{indent}torch.cuda.set_device(local_rank)\n'
    guard = (
        f'{indent}# uniformer-mm doctor: gloo on a machine without GPU has no device to set.\n'
        f'{indent}if torch.cuda.is_available():\n'
    )
    return before + call, f'{before}{guard}    {call}'


_INIT_DIST = Edit(
    'mmengine/dist/utils.py',
    (
        # launcher='pytorch'
        _guard_set_device(
            """\
            backend='mccl',
            rank=rank,
            world_size=int(os.environ['WORLD_SIZE']),
            **kwargs)
    else:
"""
        ),
        # launcher='mpi'
        _guard_set_device(
            "    local_rank = int(os.environ['OMPI_COMM_WORLD_LOCAL_RANK'])\n", indent='    '
        ),
        # launcher='slurm'
        _guard_set_device(
            """\
        torch_dist.init_process_group(backend='cncl', **kwargs)
    else:
"""
        ),
    ),
)

_WRAP_MODEL = Edit(
    'mmengine/runner/runner.py',
    (
        (
            '        model = model.to(get_device())\n\n        if not self.distributed:\n',
            """\
        model = model.to(get_device())
        # uniformer-mm doctor: DistributedDataParallel takes no device index for
        # a model on the CPU, and SyncBatchNorm has no CPU kernel.
        device_ids = None
        if self.distributed:
            if get_device() == 'cpu':
                model = revert_sync_batchnorm(model)
            else:
                device_ids = [int(os.environ['LOCAL_RANK'])]

        if not self.distributed:
""",
        ),
        (
            f'                device_ids={_DEVICE_IDS},\n',
            '                device_ids=device_ids,  # uniformer-mm doctor\n',
        ),
        (
            f"                default_args['device_ids'] = {_DEVICE_IDS}\n",
            '                # uniformer-mm doctor: None on the CPU\n'
            "                default_args['device_ids'] = device_ids\n",
        ),
    ),
)

_STRATEGY = Edit(
    'mmengine/_strategy/distributed.py',
    (
        (
            f'            device_ids={_DEVICE_IDS})\n',
            f"""\
            # uniformer-mm doctor: no device index for a model on the CPU
            device_ids=(None if get_device() == 'cpu' else
                        {_DEVICE_IDS}))
""",
        ),
    ),
)

MMENGINE_GLOO = Repair(
    name='mmengine-gloo-cpu',
    package='mmengine',
    module='mmengine',
    releases=('0.10.7',),
    defect='distributed runs on the CPU (backend gloo) call torch.cuda.set_device and fail',
    probe='mmengine-gloo',
    edits=(_INIT_DIST, _WRAP_MODEL, _STRATEGY),
)
