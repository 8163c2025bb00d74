# SPDX-License-Identifier: Apache-2.0
"""The page of results: every published row, its command, and what else is known."""

from __future__ import annotations

from uniformer_mm.recipes import TOOLBOXES, Recipe, recipes
from uniformer_mm.recipes.cli import commands, metric_text
from uniformer_mm.weights.zoo import percent

_TITLES = {
    'cls': 'ImageNet-1K',
    'det': 'COCO detection and instance segmentation (val2017)',
    'seg': 'ADE20K (validation set)',
    'pose': 'COCO keypoints (val2017)',
    'video': 'Video classification',
}
# Columns of the published metrics, with the heading of each.
_METRICS = {
    'cls': {'top1': 'top-1'},
    'det': {'bbox_mAP': 'box AP', 'segm_mAP': 'mask AP'},
    'seg': {'mIoU': 'mIoU', 'mIoU_ms': 'mIoU, multi-scale'},
    'pose': {'AP': 'AP', 'AP50': 'AP50', 'AP75': 'AP75', 'APM': 'AP-M', 'APL': 'AP-L', 'AR': 'AR'},
    'video': {'top1': 'top-1'},
}
_HEAD = """\
# Results

Made by `tools/make_index.py` from `uniformer_mm/recipes`; not to be edited.

Every metric, "params" and "FLOPs" below was **published** by the authors (READMEs of
Sense-X/UniFormer, Westlake-AI/openmixup for `om/`). **Ours: not run**, for every row: none of them
has been trained or tested here.

* FLOPs are multiply-adds of the input named beside them, in videos of all views; † marks published
  ones that are not those of the released network. "G counted" are those of the part named below
  each table: convolutions, linear layers and attention matmuls of one input (one view), without
  norms and activations. A test compares them with the network that the config builds.
* Weights: `uniformer-mm zoo fetch NAME` with the name in the table, or `uniformer://NAME` as a
  checkpoint. A dash: never released.
* Commands run in a clone; an installed package has the same configs where `uniformer-mm config ROW`
  says. [recipes.md](recipes.md) explains batches, options and how the commands change.
"""


def results_page() -> str:
    """``docs/results.md``."""
    parts = [_HEAD]
    for task in TOOLBOXES:
        found = [recipe for recipe in recipes() if recipe.task == task]
        parts += [f'## {_TITLES[task]}\n', _table(task, found), _counted(found)]
        parts += ['Commands:\n', '```bash', *_commands(found), '```\n', _remarks(found)]
    return '\n'.join(parts)


def _table(task: str, found: list[Recipe]) -> str:
    metrics = _METRICS[task]
    heads = ['row', 'config', *_input_heads(task), *metrics.values(), 'ours', 'params', 'FLOPs']
    lines = ['| ' + ' | '.join([*heads, 'G counted', 'weights']) + ' |']
    lines.append('|' + '---|' * (len(heads) + 2))
    for recipe in found:
        flops = f'{recipe.flops} @ {_input(recipe)}' if recipe.flops else '-'
        if recipe.flops_are_wrong:
            flops = flops.replace(recipe.flops, f'{recipe.flops}†')
        cells = [
            recipe.id,
            f'`{recipe.config}`',
            *_inputs(recipe),
            *(percent(recipe.metrics[name]) if name in recipe.metrics else '-' for name in metrics),
            'not run',
            recipe.params or '-',
            flops,
            f'{recipe.measured.gmacs:g}',
            f'`{recipe.row.name or recipe.id}`' if recipe.row.released else '-',
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def _input_heads(task: str) -> list[str]:
    return {'cls': ['size'], 'seg': ['attention in the test'], 'video': ['frames', 'views']}.get(
        task, []
    )


def _inputs(recipe: Recipe) -> list[str]:
    row = recipe.row
    if recipe.task == 'cls':
        return [row.size]
    if recipe.task == 'seg':
        return [row.attention]
    if recipe.task == 'video':
        return [f'{row.frames} x {row.stride}, {row.size} px', row.views]
    return []


def _input(recipe: Recipe) -> str:
    return 'all views' if recipe.task == 'video' else recipe.flops_input


def _counted(found: list[Recipe]) -> str:
    networks = list(dict.fromkeys(recipe.measured.network for recipe in found))
    protocols = {recipe.protocol.id: recipe.protocol.words for recipe in found}
    lines = [f'Counted: the {" and the ".join(networks)}.\n', 'Tested as:\n']
    lines += [f'* {name}: {words}' for name, words in protocols.items()]
    return '\n'.join(lines) + '\n'


def _commands(found: list[Recipe]) -> list[str]:
    lines = []
    for recipe in found:
        known = commands(recipe, 'configs')
        lines.append(f'# {recipe.id}')
        lines += [line for purpose, line in known.items() if purpose != 'weights']
    return lines


def _remarks(found: list[Recipe]) -> str:
    """Remarks and other published numbers, each once with its rows."""
    rows: dict[str, list[str]] = {}
    for recipe in found:
        for remark in recipe.remarks:
            rows.setdefault(remark.text, []).append(recipe.id)
    lines = ['To know:\n', *(f'* {text} ({_some(ids)})' for text, ids in rows.items())]
    others = [
        f'* {recipe.id}: {metric_text(other.metrics)} ({other.source}: {other.test})'
        for recipe in found
        for other in recipe.also_published
    ]
    if others:
        lines += ['\nAlso published for these weights:\n', *others]
    return '\n'.join(lines) + '\n'


def _some(ids: list[str]) -> str:
    return ', '.join(ids) if len(ids) <= 3 else f'{ids[0]} and {len(ids) - 1} more'
