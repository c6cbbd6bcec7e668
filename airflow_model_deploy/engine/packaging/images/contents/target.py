"""Which interpreter and processor an image's packages are for; knows no package."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass

from airflow_model_deploy.engine.errors import InputError

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_ARCHITECTURES = {machine: name for name, machine in _MACHINES.items()} | {"AMD64": "amd64", "arm64": "arm64"}
# glibc 2.28 is what every base still in support has (Debian 10, RHEL 8); wheels for a newer one wouldn't load there.
_GLIBC_MINORS = range(28, 4, -1)
_LEGACY_TAGS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class Target:
    """CPython on Linux.

    Args:
        python: "3.11".
        architecture: "amd64" or "arm64", as images name it.
    """

    python: str
    architecture: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.[0-9]+", self.python):
            raise InputError("the Python of a base image", found=repr(self.python), wanted="like 3.11")
        if self.architecture not in _MACHINES:
            raise InputError(
                "the architecture of a base image",
                found=repr(self.architecture),
                wanted=f"one of {', '.join(_MACHINES)}",
            )

    @property
    def machine(self) -> str:
        """As `uname -m` says it there."""
        return _MACHINES[self.architecture]

    @property
    def has_our_bytecode(self) -> bool:
        """Whether this interpreter writes the bytecode that the image's reads."""
        return sys.implementation.name == "cpython" and self.python == _minor()

    def platform_tags(self) -> tuple[str, ...]:
        """The wheels' platforms that load there, best first."""
        tags = []
        for minor in _GLIBC_MINORS:
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _LEGACY_TAGS:
                tags.append(f"{_LEGACY_TAGS[minor]}_{self.machine}")
        return tuple(tags)

    def markers(self) -> dict[str, str]:
        """What the markers of requirements ask for (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


def target(python: str | None = None, architecture: str | None = None) -> Target:
    """A target; what isn't said is this interpreter's.

    Raises:
        InputError: something that no image is built for.
    """
    machine = platform.machine()
    return Target(python or _minor(), architecture or _ARCHITECTURES.get(machine, machine))


def default_base() -> str:
    """A base with this interpreter's Python, which is what packages are gathered for unless said otherwise."""
    return f"python:{_minor()}-slim"


def _minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
