# SPDX-License-Identifier: Apache-2.0
"""mmengine 0.10.7 on torch >= 2.6: ``torch.load`` refuses what the runner itself saved.

What is in its checkpoints beyond tensors (found by saving them, see ``tests/env``): message-hub
histories (HistoryBuffer with NumPy arrays), scores that are NumPy scalars, and the data set's meta
information (NumPy arrays in mmpose, ConfigDict where it comes from a config). A HistoryBuffer also
stores its own methods by name, through ``getattr``, and so does a one-cycle schedule.

Each of these names is bound to a stand-in that checks what it is given: NumPy's own reconstruction
follows foreign pointers if a dtype is crafted, a HistoryBuffer would put a file's methods into its
class, and plain ``getattr`` reaches anything. And what a checkpoint calls its "config" is dropped:
``--resume`` would run it as a program.

Source: open-mmlab/mmengine issue 1655, pull request 1650.
"""

from importlib import metadata
from pathlib import Path

import uniformer_mm
from uniformer_mm.env.patching import Edit
from uniformer_mm.env.repair import Repair
from uniformer_mm.env.versions import in_range

_CHECKPOINT_ANCHOR = "DEFAULT_CACHE_DIR = '~/.cache'\n"

_NUMPY_VALUES = (Path(uniformer_mm.__file__).parent / 'weights/numpy_values.py').read_text(
    encoding='utf-8'
)

_BEGIN = """

# uniformer-mm doctor (begin): torch.load reads with weights_only since torch
# 2.6; this names what the runner itself puts into a checkpoint.
import math

import numpy

"""

_ALLOW = '''

def _allow_checkpoint_globals():
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    class SavedHistory(HistoryBuffer):
        """A log buffer that takes its numbers from a file, and no methods."""

        def __setstate__(self, state):
            arrays = [state.get(f'_{kind}_history') for kind in ('log', 'count')]
            length = state.get('max_length')
            if not all(isinstance(array, SavedArray) and array.ndim == 1
                       and array.dtype.kind in 'iuf'
                       for array in arrays) or type(length) is not int:
                raise ValueError('the checkpoint holds a damaged log buffer')
            self._set_default_statistics()
            self._log_history, self._count_history = (
                array.view(numpy.ndarray) for array in arrays)
            self.max_length = length
            self.__class__ = HistoryBuffer

    class OneCycleName:
        """Only named, as the owner of a schedule's function."""

    def saved_method(owner, name):
        """The only getattr in a checkpoint: a method that mmengine saves by name."""
        if owner is SavedHistory and name in ('min', 'max', 'current', 'mean'):
            return None
        if owner is OneCycleName and name in ('_annealing_cos', '_annealing_linear'):
            return getattr(OneCycleParamScheduler, name)
        raise ValueError(
            f'the checkpoint asks for {owner}.{name}, which mmengine does not '
            'save; load it with weights_only=False only if you trust it')

    torch.serialization.add_safe_globals([
        ConfigDict, *NUMPY_VALUES,
        (SavedHistory, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (OneCycleName,
         'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'),
        (saved_method, 'builtins.getattr')
    ])


def _without_program(checkpoint):
    """What was read, without the text that resuming would execute."""
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


if digit_version(torch.__version__) >= digit_version('2.6'):
    _allow_checkpoint_globals()
# uniformer-mm doctor (end)
'''

# What stands in numpy_values.py after its imports.
_VALUES = _NUMPY_VALUES.partition('import numpy\n\n')[2]

_LOAD = (
    '    checkpoint = torch.load(filename, map_location=map_location)\n    return checkpoint\n\n\n'
    "@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'))"
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
    edits=(
        Edit(
            'mmengine/runner/checkpoint.py',
            (
                (_CHECKPOINT_ANCHOR, _CHECKPOINT_ANCHOR + _BEGIN + _VALUES + _ALLOW),
                (
                    _LOAD,
                    _LOAD.replace(
                        'return checkpoint\n',
                        'return _without_program(checkpoint)  # uniformer-mm doctor\n',
                    ),
                ),
            ),
            # With NumPy's own reconstruction.
            former=('cf41a191e476be3705dc83efe1d07a6a5efb2402ce49683e988e599f1311bcc1',),
        ),
    ),
    needed=_weights_only_is_default,
)
