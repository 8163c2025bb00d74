# SPDX-License-Identifier: Apache-2.0
"""A repair: one defect of one released package, and the edits of its files that cure it."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from uniformer_mm.env.patching import Edit, NewFile, State


@dataclass(frozen=True)
class Repair:
    """One defect of one released package and the edits that cure it.

    Attributes:
        name: what the doctor calls it.
        package: distribution name; `module` is its import name.
        releases: versions whose files are known.
        defect: what fails without it, one sentence.
        probe: name of the program in `uniformer_mm.env.probes` that proves it by behaviour.
        edits: the changes; all or none belong in an environment.
        needed: whether the defect can strike here (given that the package is installed).
    """

    name: str
    package: str
    module: str
    releases: tuple[str, ...]
    defect: str
    probe: str
    edits: tuple[Edit | NewFile, ...]
    needed: Callable[[], bool] = lambda: True

    def version(self) -> str | None:
        """Installed version of the package, or None."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def site_dir(self) -> Path:
        """Folder that holds the package's folder (found without importing the package)."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or spec.origin is None:
            raise ValueError(
                f'{self.package} {self.version()} is registered but its module {self.module} is '
                f'missing; reinstall it: pip install --force-reinstall --no-deps {self.package}'
            )
        return Path(spec.origin).parent.parent

    def state(self, site_dir: Path) -> State:
        """State of all edits together; an interrupted repair counts as RELEASED."""
        states = {edit.state(site_dir) for edit in self.edits}
        if State.UNKNOWN in states:
            return State.UNKNOWN
        return State.RELEASED if State.RELEASED in states else State.REPAIRED

    def state_in(self, version: str | None) -> State:
        """State in this environment, where `version` of the package is installed."""
        if version not in self.releases:
            return State.UNKNOWN
        return self.state(self.site_dir())

    def apply(self, site_dir: Path) -> bool:
        """Make the edits that are missing; return whether a file changed.

        A file of unknown text stops the repair before anything is touched.
        """
        if self.state(site_dir) is not State.RELEASED:
            return False
        for edit in self.edits:
            edit.apply(site_dir)
        return True

    def revert(self, site_dir: Path) -> bool:
        """Take back the edits that are there; return whether a file changed."""
        changed = [edit.revert(site_dir) for edit in reversed(self.edits)]
        return any(changed)
