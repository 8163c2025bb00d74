# SPDX-License-Identifier: Apache-2.0
"""mmaction2 1.2.0: ``localizers/__init__.py`` imports ``.drn.drn``, the wheel lacks the folder.

Source: open-mmlab/mmaction2 issue 2714.
"""

from uniformer_mm.env.patching import NewFile
from uniformer_mm.env.repair import Repair

_DRN_INIT = '# uniformer-mm doctor: the released wheel lacks this folder, localizers imports it.\n'

_DRN_MODULE = '''\
# uniformer-mm doctor: the released wheel lacks this module, localizers imports it.
from mmaction.registry import MODELS


@MODELS.register_module()
class DRN:
    """Stands where the released wheel of mmaction2 1.2.0 forgot the DRN localizer."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError(
            'the wheel of mmaction2 1.2.0 does not contain the DRN localizer; '
            'install mmaction2 from its source repository to use DRN')
'''

MMACTION2_DRN = Repair(
    name='mmaction2-drn',
    package='mmaction2',
    module='mmaction',
    releases=('1.2.0',),
    defect='the wheel lacks localizers/drn, so mmaction.models cannot be imported',
    probe='import-mmaction',
    edits=(
        NewFile('mmaction/models/localizers/drn/__init__.py', _DRN_INIT),
        NewFile('mmaction/models/localizers/drn/drn.py', _DRN_MODULE),
    ),
)
