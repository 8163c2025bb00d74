# SPDX-License-Identifier: Apache-2.0
"""The supported range of every package, once.

Lower ends are what was tested or what the toolboxes themselves demand, upper ends are the last
release that was tested: ``setup.cfg`` states the same ranges and ``tests/env`` compares the two.
"""

from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet

PYTHON_RANGE = '>=3.10,<3.13'


@dataclass(frozen=True)
class Requirement:
    """One supported package.

    Attributes:
        name: distribution name as pip spells it.
        range: supported versions, a PEP 440 specifier set.
        required: False for what only some tasks need; its absence is no trouble.
        reason: why the range is what it is, or what the package is needed for.
        aliases: other distributions that provide the same import.
        fix: what to do instead of ``pip install "NAME RANGE"``, where that does not work.
    """

    name: str
    range: str
    required: bool = False
    reason: str = ''
    aliases: tuple[str, ...] = ()
    fix: str = ''

    @property
    def command(self) -> str:
        """What a user types to get a supported version."""
        return self.fix or f'pip install "{self.name}{self.range}"'


REQUIREMENTS = (
    Requirement('torch', '>=2.1,<2.15', required=True, reason='the network itself'),
    Requirement(
        'mmengine', '>=0.10.7,<0.11', required=True, reason='older ones break on torch >= 2.5'
    ),
    Requirement(
        'numpy', '>=1.24,<2', required=True, reason='the toolboxes use names NumPy 2 dropped'
    ),
    Requirement(
        'opencv-python',
        '>=4.7,<4.12',
        required=True,
        reason='4.12 requires NumPy 2',
        aliases=(
            'opencv-python-headless',
            'opencv-contrib-python',
            'opencv-contrib-python-headless',
        ),
    ),
    Requirement('rich', '>=13.4', required=True, reason='the console output'),
    Requirement('jinja2', '>=3', required=True, reason='the pages of reports'),
    Requirement('packaging', '>=21', required=True, reason='comparing versions'),
    Requirement('safetensors', '>=0.4', required=True, reason='weight files'),
    Requirement(
        'torchvision', '>=0.16,<0.30', reason='must be the release made for the installed torch'
    ),
    Requirement(
        'mmcv',
        '>=2.1.0,<2.2',
        reason='mmdet, mmseg and mmaction2 refuse 2.2',
        fix='make setup (compiles mmcv 2.1.0 in .venv), or install a prebuilt wheel of mmcv 2.1.0',
    ),
    Requirement('mmdet', '>=3.3.0,<3.4', reason='detection'),
    Requirement('mmsegmentation', '>=1.2.2,<1.3', reason='segmentation'),
    Requirement(
        'mmpose',
        '>=1.3.2,<1.4',
        reason='pose',
        fix='pip install --no-build-isolation "chumpy==0.70" "mmpose>=1.3.2,<1.4"',
    ),
    Requirement('mmaction2', '>=1.2.0,<1.3', reason='video'),
    Requirement(
        'mmpretrain', '>=1.2.0,<1.3', reason='classification, and imported by mmdet and mmseg'
    ),
    Requirement('openmim', '>=0.3.9,<0.4', reason='the command mim'),
    Requirement(
        'setuptools', '<81', reason='mmengine and openmim import pkg_resources, gone from 81 on'
    ),
)


def installed_version(requirement: Requirement) -> str | None:
    """Version of the first installed distribution that provides `requirement`, or None."""
    for name in (requirement.name, *requirement.aliases):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def in_range(version: str, specifier: str) -> bool:
    """Whether `version` (local parts such as ``+cu121`` ignored) satisfies `specifier`."""
    return SpecifierSet(specifier).contains(version, prereleases=True)
