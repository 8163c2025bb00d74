# SPDX-License-Identifier: Apache-2.0
"""Changing an installed file: only known text, atomically, idempotently, reversibly."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class State(Enum):
    """What an installed file looks like to an `Edit`."""

    RELEASED = 'as released'
    REPAIRED = 'repaired'
    UNKNOWN = 'unknown text'


MARK = 'uniformer-mm doctor'
"""Every changed file says so in a comment with these words."""

_INSERTED = re.compile(rf'\n\n# {MARK} \(begin\).*?# {MARK} \(end\)\n', re.DOTALL)


@dataclass(frozen=True)
class Edit:
    """The changes of one file of an installed package; no two repairs edit the same file.

    Attributes:
        path: File, relative to the folder that holds the package (``site-packages``).
        changes: Pairs of released text, which occurs exactly once, and the text in its place.
        former: SHA-256 of what earlier versions of ours inserted; such a file counts as released.
    """

    path: str
    changes: tuple[tuple[str, str], ...]
    former: tuple[str, ...] = ()

    def state(self, site_dir: Path) -> State:
        """Look at the file under `site_dir` without changing it."""
        file = site_dir / self.path
        if not file.is_file():
            return State.UNKNOWN
        text = read_exactly(file)
        # A new text may contain the old one (an insertion), so it is looked for first.
        if all(text.count(new) == 1 for _, new in self.changes):
            return State.REPAIRED
        text = self._without_former(text)
        # Another release of this package has repaired it in another way.
        if MARK in text:
            return State.UNKNOWN
        if all(text.count(old) == 1 for old, _ in self.changes):
            return State.RELEASED
        return State.UNKNOWN

    def apply(self, site_dir: Path) -> bool:
        """Bring the file from RELEASED to REPAIRED; return whether it was written."""
        if self.state(site_dir) is not State.RELEASED:
            return False
        self._replace(site_dir / self.path, self.changes)
        return True

    def revert(self, site_dir: Path) -> bool:
        """Bring the file from REPAIRED back to RELEASED; return whether it was written."""
        file = site_dir / self.path
        if self.state(site_dir) is State.REPAIRED:
            self._replace(file, [(new, old) for old, new in self.changes])
            return True
        if not file.is_file():
            return False
        text = read_exactly(file)
        released = self._without_former(text)
        if released != text:
            write_atomically(file, released)
        return released != text

    def _without_former(self, text: str) -> str:
        for found in _INSERTED.finditer(text):
            if hashlib.sha256(found[0].encode()).hexdigest() in self.former:
                return text[: found.start()] + text[found.end() :]
        return text

    def _replace(self, file: Path, changes: Iterable[tuple[str, str]]) -> None:
        text = self._without_former(read_exactly(file))
        for before, after in changes:
            text = text.replace(before, after)
        write_atomically(file, text)


@dataclass(frozen=True)
class NewFile:
    """A file that the release lacks.

    Attributes:
        path: File, relative to the folder that holds the package (``site-packages``).
        text: The whole file.
    """

    path: str
    text: str

    def state(self, site_dir: Path) -> State:
        """Look at the file under `site_dir` without changing it."""
        file = site_dir / self.path
        if not file.exists():
            return State.RELEASED
        return State.REPAIRED if read_exactly(file) == self.text else State.UNKNOWN

    def apply(self, site_dir: Path) -> bool:
        """Write the file if it is absent; return whether it was written."""
        if self.state(site_dir) is not State.RELEASED:
            return False
        write_atomically(site_dir / self.path, self.text)
        return True

    def revert(self, site_dir: Path) -> bool:
        """Remove the file, its cached byte code, and its folder if that is empty then."""
        if self.state(site_dir) is not State.REPAIRED:
            return False
        file = site_dir / self.path
        file.unlink()
        cache = file.parent / '__pycache__'
        for compiled in cache.glob(f'{file.stem}.*.pyc'):
            compiled.unlink()
        for folder in (cache, file.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return True


def read_exactly(file: Path) -> str:
    """Text of `file` with its line ends as they are, so that a revert restores every byte."""
    return file.read_bytes().decode('utf-8')


def write_atomically(file: Path, text: str) -> None:
    """Write `text` to `file` so that readers see the old or the new text, never a part.

    The new file is a new inode on purpose: installers that hard-link files out of a shared cache
    (uv, conda) would otherwise see their cache changed.

    Raises:
        ValueError: the folder cannot be written to.
    """
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    temporary = None
    try:
        file.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(
            'w',
            encoding='utf-8',
            newline='',
            dir=file.parent,
            prefix=f'.{file.name}.',
            delete=False,
        ) as handle:
            temporary = Path(handle.name)
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(mode)
        os.replace(temporary, file)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ValueError(
            f'cannot write {file} ({error.strerror}); run the command as a user who may change '
            'this environment, or make a virtual environment of your own'
        ) from error
