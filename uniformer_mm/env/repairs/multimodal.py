# SPDX-License-Identifier: Apache-2.0
"""mmpretrain 1.2.0 and mmaction2 1.2.0: multimodal models that break the import of all others.

Both switch those models on for any transformers >= 4.28, and fail at import where transformers
has dropped what the models take from it, or (mmaction2) where timm is missing; mmdet and mmseg,
which import mmpretrain, fail with it. Measured: transformers 4.48 works, 4.52, 4.57 and 5.23 do
not.
"""

from importlib import metadata

from uniformer_mm.env.patching import Edit
from uniformer_mm.env.repair import Repair

_MMPRETRAIN_IMPORTS = """\
        from transformers.modeling_utils import (  # noqa: F401
            GenerationConfig, GenerationMixin, PreTrainedModel,
            apply_chunking_to_forward, find_pruneable_heads_and_indices,
            prune_linear_layer)
"""

_MMACTION_IMPORTS = """\
        from timm.models.layers import DropPath  # noqa: F401
        from transformers.modeling_utils import (  # noqa: F401
            PreTrainedModel, apply_chunking_to_forward,
            find_pruneable_heads_and_indices, prune_linear_layer)
        from transformers.models.beit.modeling_beit import (  # noqa: F401
            BeitAttention, BeitDropPath, BeitLayer, BeitRelativePositionBias)
"""


def _multimodal_edit(path: str, switch: str, imports: str) -> Edit:
    """Add to the statement `switch` that what the multimodal models import is there."""
    guard = f"""\
# uniformer-mm doctor (begin): newer transformers dropped names that the
# multimodal models import; without them the models stay off.
def _multimodal_imports_work():
    try:
{imports}    except ImportError:
        return False
    return True


"""
    assert switch.endswith(')\n')
    guarded = switch.removesuffix('\n') + ' and _multimodal_imports_work()\n'
    return Edit(path, ((switch, f'{guard}{guarded}# uniformer-mm doctor (end)\n'),))


_MMPRETRAIN_MULTIMODAL_EDIT = _multimodal_edit(
    'mmpretrain/utils/dependency.py',
    """\
WITH_MULTIMODAL = all(
    satisfy_requirement(item)
    for item in ['pycocotools', 'transformers>=4.28.0'])
""",
    _MMPRETRAIN_IMPORTS,
)

_MMACTION_MULTIMODAL_EDIT = _multimodal_edit(
    'mmaction/utils/dependency.py',
    """\
WITH_MULTIMODAL = all(
    satisfy_requirement(item) for item in ['transformers>=4.28.0'])
""",
    _MMACTION_IMPORTS,
)


def _transformers_is_installed() -> bool:
    try:
        metadata.version('transformers')
    except metadata.PackageNotFoundError:
        return False
    return True


MMPRETRAIN_MULTIMODAL = Repair(
    name='mmpretrain-multimodal',
    package='mmpretrain',
    module='mmpretrain',
    releases=('1.2.0',),
    defect='with a recent transformers installed mmpretrain.models cannot be imported',
    probe='import-mmpretrain',
    edits=(_MMPRETRAIN_MULTIMODAL_EDIT,),
    needed=_transformers_is_installed,
)

MMACTION2_MULTIMODAL = Repair(
    name='mmaction2-multimodal',
    package='mmaction2',
    module='mmaction',
    releases=('1.2.0',),
    defect='with a recent transformers installed mmaction.models cannot be imported',
    probe='import-mmaction',
    edits=(_MMACTION_MULTIMODAL_EDIT,),
    needed=_transformers_is_installed,
)
