# SPDX-License-Identifier: Apache-2.0
"""The repairs of released packages that cannot work as they are, one defect per module.

A repair edits the installed files of one package, in the releases whose text is known, and says
so in a comment there. Nothing is patched while our package is imported: what runs is what is
written in the files, with or without uniformer_mm. ``uniformer-mm doctor --revert`` takes every
repair back.
"""

from uniformer_mm.env.repairs.mmaction2_drn import MMACTION2_DRN
from uniformer_mm.env.repairs.mmengine_gloo import MMENGINE_GLOO
from uniformer_mm.env.repairs.mmengine_weights_only import MMENGINE_WEIGHTS_ONLY
from uniformer_mm.env.repairs.multimodal import MMACTION2_MULTIMODAL, MMPRETRAIN_MULTIMODAL

REPAIRS = (
    MMENGINE_WEIGHTS_ONLY,
    MMENGINE_GLOO,
    MMPRETRAIN_MULTIMODAL,
    MMACTION2_MULTIMODAL,
    MMACTION2_DRN,
)

__all__ = ['REPAIRS']
