# SPDX-License-Identifier: Apache-2.0
"""The registry scope ``uniformer_mm``, a child of mmengine's root beside every toolbox.

mmengine resolves ``type='uniformer_mm.UniFormer2d'`` from any toolbox's scope by importing this
module and asking the child of that name, so configs need no ``custom_imports``. Every class is
known to the root as well: plain ``type='UniFormer2d'`` works in all scopes once ``uniformer_mm`` is
imported. Either way a class's module is imported when the class is asked for, not earlier. No
toolbox is imported here or anywhere else in the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TypeVar

from mmengine import registry as root
from mmengine.registry import Registry

SCOPE = 'uniformer_mm'

T = TypeVar('T', bound=Callable)

# Registry: module: the types that it registers. Modules stand relative to the package.
_TYPES = {
    'MODELS': {
        'models.uniformer': ['UniFormer2d', 'UniFormer3d'],
        'models.classifier': ['UniFormer2dClassifier', 'UniFormer3dClassifier'],
        'models.heads': ['ClipPairHead', 'ImagePairHead'],
        'datasets.video.mixing': ['MirrorCutmix', 'MirrorMixup'],
        'evaluation.running.tta': ['RunningSegTTA'],
        'hooks.ema': ['ForeachMovingAverage'],
    },
    'WEIGHT_INITIALIZERS': {'weights.mmengine': ['UniFormerPretrained']},
    'TRANSFORMS': {
        'datasets.pose': ['ClippedBBoxTransform'],
        'datasets.video.copies': ['AugmentedCopies'],
        'datasets.video.decoding': ['DecordDecodeOnce'],
        'datasets.video.erasing': ['CubeErasing'],
        'datasets.video.geometry': [
            'ClipRandomResizedCrop', 'ClipShortSideResize', 'ClipUniformCrop', 'RGBToBGR',
        ],
        'datasets.video.rand_augment': ['ClipRandAugment'],
        'datasets.video.sampling': ['LinspaceSampleFrames', 'SegmentSampleFrames'],
        'evaluation.running.transforms': ['StackViews'],
    },
    'HOOKS': {
        'hooks.autocast': ['InferenceAutocastHook'],
        'hooks.compile': ['CompileHook'],
        'hooks.ema': ['TrackedEMAHook'],
        'hooks.float32': ['Float32ModulesHook'],
        'inference.hook': ['ClipVisualizationHook'],
        'reliability.checkpoint_hook': ['DurableCheckpointHook'],
        'reliability.nonfinite_hook': ['NonFiniteLossHook'],
        'reliability.stop_hook': ['StopOnSignalHook'],
    },
    'PARAM_SCHEDULERS': {'hooks.schedule': ['WarmupCosineLR']},
    'OPTIMIZERS': {'optim.adamw': ['FusedAdamW']},
    'OPTIM_WRAPPERS': {
        'optim.bfloat16': ['BFloat16OptimWrapper'],
        'optim.sharding': [
            'ShardedAmpOptimWrapper', 'ShardedBFloat16OptimWrapper', 'ShardedOptimWrapper',
        ],
    },
    'OPTIM_WRAPPER_CONSTRUCTORS': {'optim.layer_decay': ['LayerDecayConstructor']},
    'FUNCTIONS': {'optim.sharding': ['wrap_blocks']},
    'STRATEGIES': {'optim.strategy': ['ResumableFSDPStrategy']},
    'LOOPS': {'evaluation.running.loop': ['ResumableTestLoop']},
    'METRICS': {
        'evaluation.metrics.confusion': ['ConfusionIoU'],
        'evaluation.metrics.views': ['ViewAccuracy'],
        'submission.ade20k.label_maps': ['LabelMaps'],
    },
}  # fmt: skip


class _RootTable(dict):
    """A root registry's table, in which our names stand before their modules are imported.

    mmengine asks a parent's table itself, so the parent's own lazy ``locations`` do not help.
    """

    def __init__(self, registered: Mapping[str, object], homes: dict[str, str]) -> None:
        super().__init__(registered)
        self.homes = homes

    def __contains__(self, name: object) -> bool:
        # Forgotten first: registering asks whether the name is taken.
        home = None if super().__contains__(name) else self.homes.pop(name, None)
        if home is not None:
            import_module(home)
        return super().__contains__(name)


def _child(name: str) -> Registry:
    homes = {f'{SCOPE}.{module}': types for module, types in _TYPES[name].items()}
    parent = getattr(root, name)
    by_type = {type_: module for module, types in homes.items() for type_ in types}
    parent._module_dict = _RootTable(parent._module_dict, by_type)
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=list(homes))


MODELS = _child('MODELS')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')
TRANSFORMS = _child('TRANSFORMS')
HOOKS = _child('HOOKS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
OPTIMIZERS = _child('OPTIMIZERS')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS')
FUNCTIONS = _child('FUNCTIONS')
STRATEGIES = _child('STRATEGIES')
LOOPS = _child('LOOPS')
METRICS = _child('METRICS')


def register(registry: Registry) -> Callable[[T], T]:
    """Decorator: registers a class or function in ``registry`` (our scope) and in its root.

    What is to be found before its module is imported has a place in ``_TYPES`` too.

    Args:
        registry: One of this module's child registries.

    Returns:
        The decorator, which hands it back unchanged.

    Raises:
        KeyError: From mmengine, if the name is taken in either registry.
    """

    def decorate(cls: T) -> T:
        # Whoever imports the module itself has no more need of the root's way to it.
        registry.parent.module_dict.homes.pop(cls.__name__, None)
        registry.register_module(module=cls)
        registry.parent.register_module(module=cls)
        return cls

    return decorate
