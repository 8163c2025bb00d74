# SPDX-License-Identifier: Apache-2.0
"""One UniFormer, 2-D and 3-D, for mmdet, mmseg, mmpose, mmaction2 and mmpretrain."""

from .models import UniFormer2d, UniFormer3d, create_model, list_models

__version__ = '0.1.0'

__all__ = ['UniFormer2d', 'UniFormer3d', '__version__', 'create_model', 'list_models']
