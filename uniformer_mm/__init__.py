# SPDX-License-Identifier: Apache-2.0
"""One UniFormer, 2-D and 3-D, for mmdet, mmseg, mmpose, mmaction2 and mmpretrain.

Importing the package imports neither PyTorch nor mmengine: the names below import their module when
they are first used, and what mmengine must know of us it is told when it is imported itself.
"""

from .after_import import after_import
from .lazy import lazy_names

__version__ = '0.1.0'

# Public name: the module that defines it. One line more makes one name more.
_NAMES = {
    'UniFormer2d': '.models',
    'UniFormer3d': '.models',
    'compile': '.fast.compile',
    'create_model': '.create',
    'explain_speed': '.fast.explain',
    'fold_for_inference': '.models.folded',
    'list_models': '.create',
    'load_predictor': '.inference',
    'predict': '.inference',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
__all__ += ['__version__']

# Plain type='UniFormer2d' in every toolbox's scope; load_from='uniformer://...' of mmengine.
after_import('mmengine.registry', 'uniformer_mm.registry')
after_import('mmengine.runner.checkpoint', 'uniformer_mm.weights.mmengine')
# Counters of operations learn of fused attention, which their tables leave out.
after_import('torch.utils.flop_counter', 'uniformer_mm.flops.for_torch')
after_import('mmengine.analysis.complexity_analysis', 'uniformer_mm.flops.for_mmengine')
after_import('fvcore.nn.flop_count', 'uniformer_mm.flops.for_fvcore')
after_import('thop.profile', 'uniformer_mm.flops.for_thop')
after_import('ptflops.pytorch_ops', 'uniformer_mm.flops.for_ptflops')
