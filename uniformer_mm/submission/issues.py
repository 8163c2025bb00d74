# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a file: every issue counted, the first few of each kind kept."""

from __future__ import annotations

from dataclasses import dataclass, field

KEPT = 5
# A value of an untrusted file in a message: enough to recognise it, never a screenful.
_SHOWN = 80
_LINE = 400


@dataclass
class Kind:
    """Issues of one kind.

    Attributes:
        title: The rule that is broken, in words.
        count: How often.
        examples: Where and what, for the first ones.
    """

    title: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Issues:
    """Collects the issues of one file.

    A frequent issue cannot hide a rare one: the cap is per kind, not on the whole.

    Attributes:
        file: The file, as messages name it.
        kinds: Issues by kind, in the order in which each kind was first seen.
        notes: Facts that are not issues.
        unchecked: What only the official list can tell, where it is not at hand; else empty.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.kinds: dict[str, Kind] = {}
        self.notes: list[str] = []
        self.unchecked = ''

    def add(self, title: str, where: str, what: str) -> None:
        """Count an issue.

        Args:
            title: The rule that is broken; issues of one title are counted together.
            where: Place in the file, such as ``'entry 17 (image 139)'``.
            what: The value found and what was expected.
        """
        kind = self.kinds.setdefault(title, Kind(title))
        kind.count += 1
        if len(kind.examples) < KEPT:
            kind.examples.append(_printable(f'{where}: {what}' if where else what))

    def note(self, text: str) -> None:
        """Keep a fact that the user should know and that is no issue."""
        self.notes.append(text)

    @property
    def count(self) -> int:
        """Number of issues."""
        return sum(kind.count for kind in self.kinds.values())

    def lines(self) -> list[str]:
        """The issues as text, one line each, kinds in the order of their first issue."""
        found = []
        for kind in self.kinds.values():
            found.append(f'{kind.title}: {kind.count:,}')
            found.extend(f'  {example}' for example in kind.examples)
            if kind.count > len(kind.examples):
                found.append(f'  ... and {kind.count - len(kind.examples):,} more')
        return found

    def refuse(self, advice: str) -> None:
        """Raise if there is an issue.

        Args:
            advice: What the user can do.

        Raises:
            ValueError: With the first example of each kind, and ``advice``.
        """
        if self.kinds:
            parts = [
                f'{kind.title} ({kind.count:,}): {kind.examples[0]}' for kind in self.kinds.values()
            ]
            raise ValueError(f'{self.file}: {"; ".join(parts)}. {advice}')


def _printable(text: str) -> str:
    """Text of one line: names in an untrusted file may hold what terminals take for commands."""
    text = text if len(text) <= _LINE else f'{text[:_LINE]}...'
    return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """A value for a message: its ``repr``, cut to 80 characters.

    Long containers are cut before they are turned into text.
    """
    if isinstance(value, (str, bytes)) and len(value) > _SHOWN:
        return repr(value[: _SHOWN - 3])[:_SHOWN] + '...'
    if isinstance(value, list) and len(value) > 8:
        return f'[{", ".join(shown(item) for item in value[:4])}, ... {len(value)} values]'
    if isinstance(value, dict) and len(value) > 8:
        keys = ', '.join(shown(key) for key in list(value)[:4])
        return f'{{{keys}, ... {len(value)} keys}}'
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'
