# SPDX-License-Identifier: Apache-2.0
"""Prediction on images and clips with any model of the suite; see docs/predict.md."""

from ..lazy import lazy_names

_NAMES = {
    'Classification': '.results',
    'Detections': '.results',
    'LabelMap': '.results',
    'Poses': '.results',
    'Predictor': '.predictor',
    'Result': '.results',
    'UnreadableError': '..errors',
    'load_predictor': '.predictor',
    'predict': '.predictor',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
