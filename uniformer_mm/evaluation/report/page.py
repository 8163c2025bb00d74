# SPDX-License-Identifier: Apache-2.0
"""The pieces of a report: tables, figures and the page around them, without any other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1c2430; background: #f4f6f8;
       margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0 2px; } h2 { font-size: 19px; margin: 0 0 12px; }
section { background: #fff; border: 1px solid #dde3ea; border-radius: 8px; padding: 18px 22px;
          margin: 18px 0; overflow-x: auto; }
p.lead { color: #4a5868; margin: 0 0 8px; } p.note { color: #4a5868; font-size: 13px; }
.verdict { display: inline-block; padding: 3px 12px; border-radius: 12px; font-weight: 600; }
.within { background: #d9f2e1; color: #14532d; } .outside { background: #fbdcdc; color: #7f1d1d; }
.open { background: #e6eaf0; color: #334155; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 4px 10px 4px 0; text-align: left; vertical-align: top; }
th { color: #4a5868; font-weight: 600; border-bottom: 1px solid #cbd5e1; }
td { border-bottom: 1px solid #eef1f5; } td.number, th.number { text-align: right; }
th[scope=row] { border-bottom-color: #eef1f5; }
td.number { font-variant-numeric: tabular-nums; }
td.digest { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px;
            overflow-wrap: anywhere; }
.columns { display: flex; flex-wrap: wrap; gap: 12px 26px; align-items: flex-start;
           margin-bottom: 12px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr));
           gap: 16px; }
.gallery.wide { grid-template-columns: repeat(auto-fill, minmax(min(500px, 100%), 1fr)); }
.gallery.wide img { max-height: 250px; }
figure { margin: 0; } .columns figure { max-width: 660px; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
          margin-right: 7px; vertical-align: -1px; } h3 { font-size: 15px; margin: 4px 0 8px; }
figure img { max-width: 100%; border-radius: 4px; display: block; }
figcaption { font-size: 13px; color: #334155; margin-top: 4px; overflow-wrap: anywhere; }
"""


class Html(str):
    """Text that is HTML already; anything else is escaped."""


def text(value: object) -> Html:
    """A value as HTML."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; numbers and their headings stand on the right."""
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(headings))]
    head = ''.join(_cell('th', h, numeric[i]) for i, h in enumerate(headings))
    body = ''.join(
        '<tr>' + ''.join(_cell('td', cell, numeric[i]) for i, cell in enumerate(row)) + '</tr>'
        for row in rows
    )
    return Html(f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and values, one pair a line; long digests in small type."""
    lines = []
    for name, value in pairs:
        kind = ' class="digest"' if 'sha256' in name else ''
        lines.append(f'<tr><th scope="row">{text(name)}</th><td{kind}>{text(value)}</td></tr>')
    return Html(f'<table>{"".join(lines)}</table>')


def image(data: bytes, caption: object, kind: str = 'jpeg') -> Html:
    """A picture inside of the page."""
    encoded = base64.b64encode(data).decode()
    alt = escape(' '.join(str(caption).split())) if not isinstance(caption, Html) else ''
    return Html(
        f'<figure><img alt="{alt}" src="data:image/{kind};base64,{encoded}">'
        f'<figcaption>{text(caption)}</figcaption></figure>'
    )


def gallery(figures: Iterable[Html], *, wide: bool = False) -> Html:
    """Figures side by side."""
    return Html(f'<div class="gallery{" wide" if wide else ""}">{"".join(figures)}</div>')


def columns(*parts: Html) -> Html:
    """Parts side by side where there is room."""
    return Html(f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>')


def swatch(red: int, green: int, blue: int, words: str) -> Html:
    """Words behind a patch of a colour."""
    style = f'background: rgb({red}, {green}, {blue})'
    return Html(f'<span class="swatch" style="{style}"></span>{text(words)}')


def note(words: str) -> Html:
    """A remark in small type."""
    return Html(f'<p class="note">{text(words)}</p>')


def section(title: str, *parts: Html) -> Html:
    """A titled block; nothing if it has no content."""
    content = ''.join(parts)
    return Html(f'<section><h2>{text(title)}</h2>{content}</section>') if content else Html('')


def verdict(words: str, agrees: bool | None) -> Html:
    """A coloured verdict."""
    kind = {True: 'within', False: 'outside', None: 'open'}[agrees]
    return Html(f'<p><span class="verdict {kind}">{text(words)}</span></p>')


def document(title: str, *parts: Html) -> str:
    """The whole page. It forbids itself to load anything."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f'<title>{text(title)}</title><style>{_STYLE}</style></head>'
        f'<body><main>{"".join(parts)}</main></body></html>\n'
    )


def _is_number(value: object) -> bool:
    return str(value).replace('.', '', 1).replace(',', '').strip(' +-−%').isdigit() or value in (
        '', '-',
    )  # fmt: skip


def _cell(tag: str, value: object, numeric: bool) -> str:
    kind = ' class="number"' if numeric else ''
    return f'<{tag}{kind}>{text(value)}</{tag}>'
