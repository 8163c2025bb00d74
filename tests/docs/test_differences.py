# SPDX-License-Identifier: Apache-2.0
"""docs/differences.md has a row for every ``DIFFERS:`` mark, and no other."""

from __future__ import annotations

import re
from collections import Counter

from tests.conftest import ROOT


def test_every_mark_has_its_row() -> None:
    marks = Counter()
    for folder in ('uniformer_mm', 'configs', 'tools'):
        for path in (ROOT / folder).rglob('*.py'):
            count = path.read_text().count('DIFFERS:')
            if count:
                marks[path.relative_to(ROOT).as_posix()] = count
    rows = re.findall(r'^\| `([^`]+)` \|', (ROOT / 'docs' / 'differences.md').read_text(), re.M)
    assert Counter(rows) == marks
