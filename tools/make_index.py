#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write what is made from the catalogue: model index, metafiles for mim, tables of results.

With ``--check``, only name the files that differ from it, and fail if there are any.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from result_tables import results_page

from uniformer_mm.recipes import TOOLBOXES, Recipe, recipes
from uniformer_mm.weights.zoo import Mirror

ROOT = Path(__file__).resolve().parents[1]
MADE = '# Made by tools/make_index.py from uniformer_mm/recipes; not to be edited.\n'
PUBLISHED = 'published by the authors, not run here'

_TASKS = {
    'cls': 'Image Classification',
    'det': 'Object Detection',
    'seg': 'Semantic Segmentation',
    'pose': 'Body 2D Keypoint',
    'video': 'Action Recognition',
}
_DATASETS = {
    'imagenet1k': 'ImageNet-1k',
    'coco': 'COCO',
    'ade20k': 'ADE20K',
    'coco_keypoints': 'COCO',
    'kinetics400': 'Kinetics-400',
    'kinetics600': 'Kinetics-600',
    'ssv1': 'SthV1',
    'ssv2': 'SthV2',
    'ucf101': 'UCF101',
    'hmdb51': 'HMDB51',
}
# Names of the toolboxes' own metafiles.
_METRICS = {
    'bbox_mAP': 'box AP',
    'segm_mAP': 'mask AP',
    'mIoU_ms': 'mIoU(ms+flip)',
    'AP50': 'AP@0.5',
    'AP75': 'AP@0.75',
    'APM': 'AP(M)',
    'APL': 'AP(L)',
    'top1': 'Top 1 Accuracy',
}


def made_files() -> dict[str, str]:
    """Content of every file made from the catalogue, by its path in the repository."""
    files = {'uniformer_mm/.mim/model-index.yml': model_index()}
    files |= {f'configs/{task}/metafile.yml': metafile(task) for task in TOOLBOXES}
    return files | {'docs/results.md': results_page()}


def model_index() -> str:
    """The file that mim reads first."""
    collection = {
        'Name': 'UniFormer',
        'Metadata': {'Architecture': ['Depthwise Convolution', 'Multi-Head Attention']},
        'Paper': ['https://arxiv.org/abs/2201.09450', 'https://arxiv.org/abs/2201.04676'],
    }
    imports = [f'configs/{task}/metafile.yml' for task in TOOLBOXES]
    return _yaml({'Collections': [collection], 'Import': imports})


def metafile(task: str) -> str:
    """The models of one task."""
    models = [
        _model(recipe, config)
        for recipe in recipes()
        if recipe.task == task
        for config in recipe.configs
    ]
    return _yaml({'Models': models})


def _model(recipe: Recipe, config: str) -> dict:
    row = recipe.row
    # mim lowers the case of these values: no address of a case-sensitive server can be among them.
    facts = {
        'Row': recipe.id,
        'Toolbox': recipe.toolbox,
        'Arch': recipe.arch,
        'Attention': row.attention or 'global',
        'Training Data': _DATASETS[row.dataset],
        'Published Parameters': recipe.params,
        'Published FLOPs': recipe.flops + (' (wrong)' if recipe.flops_are_wrong else ''),
        'Results Are': PUBLISHED,
        'Fetch': f'uniformer-mm zoo fetch {row.name or row.id}' if row.released else '',
    }
    model = {
        'Name': Path(config).stem,
        'In Collection': 'UniFormer',
        'Config': f'configs/{config}',
        'Metadata': {name: value for name, value in facts.items() if value},
    }
    if config == recipe.config:
        metrics = {_METRICS.get(name, name): value for name, value in recipe.metrics.items()}
        result = {'Task': _TASKS[recipe.task], 'Dataset': _DATASETS[row.dataset]}
        model['Results'] = [result | {'Metrics': metrics}]
    weights = [mirror.url for mirror in row.mirrors if _is_direct(recipe, mirror)]
    if weights:
        model['Weights'] = weights[0]
    return model


def _is_direct(recipe: Recipe, mirror: Mirror) -> bool:
    """Whether a plain download of the file loads into the config without a conversion."""
    toolboxes = ('seg', 'det', 'pose', 'video')
    return (
        mirror.kind in ('url', 'mirror')
        and mirror.container == 'state_dict'
        and recipe.task in toolboxes
    )


def _yaml(content: dict) -> str:
    return MADE + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail on differences')
    check = parser.parse_args().check
    stale = [
        (ROOT / name, text)
        for name, text in made_files().items()
        if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding='utf-8') != text
    ]
    for path, text in stale:
        print(f'{"differs" if check else "written"}: {path.relative_to(ROOT)}')
        if not check:
            path.write_text(text, encoding='utf-8')
    return 1 if check and stale else 0


if __name__ == '__main__':
    sys.exit(main())
