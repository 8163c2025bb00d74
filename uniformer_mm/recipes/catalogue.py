# SPDX-License-Identifier: Apache-2.0
"""The catalogue of published results: one recipe for each row of the zoo, from tables.

The zoo (``uniformer_mm/weights/zoo``) holds what belongs to a checkpoint: arch, attention, data
set, input, published metrics, file. The tables beside this file hold the rest, keyed by the same
ids, and no fact stands in both:

``recipes.csv``
    Config, whose training made the weights, GPUs and seed of the published training, parameters
    and FLOPs as printed (multiply-adds, of all views in videos) and their input, test protocol.
``protocols.csv``
    How a kind of result is tested, as settings and in words.
``measured_params.csv``, ``measured_macs.csv``
    What the official classes count on torch's meta device: parameters, and multiply-adds of
    convolutions, linear layers and attention matmuls, without norms and activations.
``remarks.csv``
    Contradictions and traps of the official sources, each once, with patterns of the rows.
``also_published.csv``
    Other numbers that were published for the same weights.

Sources: READMEs, scripts and issues of Sense-X/UniFormer @52a0415; Westlake-AI/openmixup @37e1372;
mmaction2 and mmpose. Parameters of image classifiers stand in ``uniformer_mm/models/arch.py``.
"""

from __future__ import annotations

import difflib
from functools import lru_cache

from ..weights.zoo import SCHEME
from .recipe import Recipe
from .tables import read_catalogue


@lru_cache(maxsize=1)
def recipes() -> tuple[Recipe, ...]:
    """All recipes, in the zoo's order.

    Raises:
        ValueError: A table is malformed; the message names file and line.
    """
    return read_catalogue()


def find_recipe(name: str) -> Recipe:
    """The recipe of a row id, a config (``det/NAME.py``) or the name of its weights.

    Weights that several rows share belong to the row that trains them.

    Raises:
        ValueError: No such recipe; the message has the closest names.
    """
    wanted = name.removeprefix(SCHEME).removeprefix('configs/')
    known: dict[str, Recipe] = {recipe.id: recipe for recipe in recipes()}
    for recipe in recipes():
        for alias in (*recipe.configs, recipe.row.name):
            if alias:
                known.setdefault(alias, recipe)
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        raise ValueError(
            f'{name!r} is no recipe'
            + (f'; did you mean one of {close}?' if close else '')
            + ' (all ids: uniformer-mm recipes).'
        )
    return known[wanted]
