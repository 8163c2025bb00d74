# SPDX-License-Identifier: Apache-2.0
"""The pieces of a report, from the macros of ``page.html.jinja``; the page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

_MACROS = (
    Environment(
        loader=PackageLoader('uniformer_mm.evaluation', 'report'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    .get_template('page.html.jinja')
    .module
)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table; numbers and their headings stand on the right."""
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(headings))]
    return _MACROS.table(headings, rows, numeric)


def pairs(lines: Iterable[tuple[str, object]]) -> Markup:
    """Names and values, one pair a line; long digests in small type."""
    return _MACROS.pairs(list(lines))


def image(data: bytes, caption: object, kind: str = 'jpeg') -> Markup:
    """An image inside of the page."""
    source = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    alt = '' if isinstance(caption, Markup) else ' '.join(str(caption).split())
    return _MACROS.image(source, alt, caption)


def gallery(figures: Iterable[Markup], *, wide: bool = False) -> Markup:
    """Figures side by side."""
    return _MACROS.gallery(list(figures), wide)


def columns(*parts: Markup) -> Markup:
    """Parts side by side where there is room."""
    return _MACROS.columns(parts)


def swatch(red: int, green: int, blue: int, words: str) -> Markup:
    """Words behind a patch of a colour."""
    return _MACROS.swatch((red, green, blue), words)


def note(words: str) -> Markup:
    """A remark in small type."""
    return _MACROS.note(words)


def section(title: str, *parts: Markup) -> Markup:
    """A titled block; nothing if it has no content."""
    return _MACROS.section(title, parts) if any(parts) else Markup('')


def verdict(words: str, agrees: bool | None) -> Markup:
    """A coloured verdict."""
    return _MACROS.verdict(words, {True: 'within', False: 'outside', None: 'open'}[agrees])


def heading(title: str, lead: str) -> Markup:
    """The page's title and what it is about."""
    return _MACROS.heading(title, lead)


def document(title: str, *parts: Markup) -> str:
    """The whole page. It forbids itself to load anything."""
    return str(_MACROS.document(title, parts))


def _is_number(value: object) -> bool:
    return str(value).replace('.', '', 1).replace(',', '').strip(' +-−%').isdigit() or value in (
        '', '-',
    )  # fmt: skip
