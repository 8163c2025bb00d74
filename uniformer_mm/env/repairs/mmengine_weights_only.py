# SPDX-License-Identifier: Apache-2.0
"""mmengine 0.10.7 on torch >= 2.6: ``torch.load`` refuses what the runner itself saved.

What is in its checkpoints beyond tensors (found by saving them, see ``tests/env``): message-hub
histories (HistoryBuffer with NumPy arrays), scores that are NumPy scalars, and the data set's meta
information (NumPy arrays in mmpose, ConfigDict where it comes from a config). A HistoryBuffer also
stores its own methods by name, through ``getattr``, and so does a one-cycle schedule. Plain
``getattr`` on an allow-list would reach anything, so the name is bound to a function that serves
these two classes.

Source: open-mmlab/mmengine issue 1655, pull request 1650.
"""

from importlib import metadata

from uniformer_mm.env.patching import Edit
from uniformer_mm.env.repair import Repair
from uniformer_mm.env.versions import in_range

_CHECKPOINT_ANCHOR = "DEFAULT_CACHE_DIR = '~/.cache'\n"

_CHECKPOINT_ALLOW_LIST = (
    _CHECKPOINT_ANCHOR
    + '''

# uniformer-mm doctor (begin): torch.load reads with weights_only since torch
# 2.6; this names what the runner itself puts into a checkpoint.
def _saved_method(owner, name):
    """The only getattr in a checkpoint: a method that mmengine saves by name."""
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    saved = {
        HistoryBuffer: ('min', 'max', 'current', 'mean'),
        OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear')
    }
    if name not in saved.get(owner, ()):
        raise ValueError(
            f'the checkpoint asks for {owner}.{name}, which mmengine does not '
            'save; load it with weights_only=False only if you trust it')
    return getattr(owner, name)


def _allow_checkpoint_globals():
    import numpy as np

    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    array = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    # NumPy 2 writes numpy._core where NumPy 1 writes numpy.core.
    names = [(function, f'numpy.{core}.multiarray.{name}')
             for function, name in ((array, '_reconstruct'), (scalar,
                                                              'scalar'))
             for core in ('core', '_core')]
    dtypes = {type(np.dtype(code))
              for code in ('?', 'u1', 'i4', 'i8', 'f4', 'f8', 'U1')}
    torch.serialization.add_safe_globals([
        HistoryBuffer, OneCycleParamScheduler, ConfigDict, np.ndarray,
        np.dtype, *dtypes, *names, (_saved_method, 'builtins.getattr')
    ])


if digit_version(torch.__version__) >= digit_version('2.6'):
    _allow_checkpoint_globals()
# uniformer-mm doctor (end)
'''
)


def _weights_only_is_default() -> bool:
    return in_range(metadata.version('torch'), '>=2.6')


MMENGINE_WEIGHTS_ONLY = Repair(
    name='mmengine-weights-only',
    package='mmengine',
    module='mmengine',
    releases=('0.10.7',),
    defect="torch.load refuses mmengine's own checkpoints, so --resume fails on torch >= 2.6",
    probe='mmengine-checkpoint',
    edits=(Edit('mmengine/runner/checkpoint.py', ((_CHECKPOINT_ANCHOR, _CHECKPOINT_ALLOW_LIST),)),),
    needed=_weights_only_is_default,
)
