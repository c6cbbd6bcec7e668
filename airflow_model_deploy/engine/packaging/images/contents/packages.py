"""Third-party packages for an image, from wherever pip's own settings say; the same bytes in every folder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import digest_of
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.packaging.images.contents.bytecode import compile_folder
from airflow_model_deploy.engine.packaging.images.contents.cache import finishing, is_whole
from airflow_model_deploy.engine.packaging.images.contents.trimming import TRIMS, trim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_model_deploy.engine.packaging.images.contents.target import Target
    from airflow_model_deploy.engine.packaging.images.contents.trimming import Trim

_RECIPE = 1  # raised when the same pins and trims give another folder
_LINES_SHOWN = 6
_SECRET_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
# What pip says when a later try may succeed.
_PASSING = re.compile(
    r"timed out|Max retries|Connection (refused|reset|aborted|broken)|Temporary failure|NewConnectionError"
    r"|(429|50[0-9]) \w+ Error|(429|50[0-9]) Client Error|No space left",
    re.IGNORECASE,
)
_NOISE = re.compile(r"^\s*(\[notice\]|WARNING: Location .* is ignored)")


@dataclass(frozen=True)
class Gathered:
    """Packages that lie in a folder.

    Args:
        folder: where; nothing else lies there.
        pins: `name==version`, sorted.
    """

    folder: Path
    pins: tuple[str, ...]


def gather(
    pins: Sequence[str],
    target: Target,
    scratch: Path,
    *,
    prefix: str,
    trims: tuple[Trim, ...] = (),
    install: Callable[[Sequence[str], Target, Path], None] | None = None,
) -> Gathered:
    """Install exact versions into a folder below `scratch`, trim and compile them.

    A folder that an earlier call has finished there is used again, if it is still what it was: a retry downloads
    nothing.

    Args:
        pins: `name==version`; nothing that they need is added.
        target: what they are for. Where this interpreter writes another Python's bytecode, there is none.
        scratch: a folder to work in, on a disk with room for the packages twice.
        prefix: where they will lie in the image, absolute.
        trims: what goes besides `TRIMS`.
        install: puts packages into a folder; pip, unless said otherwise.

    Raises:
        InputError: there is no pip, or no wheel of a version for the target.
        UnavailableError: the index doesn't answer, or the disk is full.
    """
    wanted = tuple(sorted(pins))
    everything = (*TRIMS, *trims)
    key = digest_of(
        {
            "recipe": _RECIPE,
            "pins": wanted,
            "target": [target.python, target.architecture],
            "prefix": prefix,
            "bytecode": sys.version if target.has_our_bytecode else None,
            "trims": [[one.pattern, list(one.keep)] for one in everything],
        }
    )
    folder = scratch / f"packages-{key.removeprefix('sha256:')[:16]}"
    if not is_whole(folder):
        with finishing(folder) as partial:
            (install or pip_install)(wanted, target, partial)
            trim(partial, everything)
            if target.has_our_bytecode:
                compile_folder(partial, prefix)
    return Gathered(folder, wanted)


def pip_install(pins: Sequence[str], target: Target, folder: Path) -> None:
    """Unpack wheels into a folder by pip, with its own configuration: indexes, proxies, certificates, credentials.

    Raises:
        InputError: there is no pip, or no wheel of a version for the target.
        UnavailableError: the index doesn't answer, or the disk is full.
    """
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            "packages for an image are gathered by pip",
            found=f"{sys.executable} has none",
            remedy=f"{sys.executable} -m ensurepip",
        )
    platforms = [text for tag in target.platform_tags() for text in ("--platform", tag)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-compile",
            "--only-binary=:all:",
            "--python-version",
            target.python,
            "--implementation",
            "cp",
            *platforms,
            "--target",
            str(folder),
            *pins,
        ],
        # A configuration that installs for the user can't be combined with a target.
        env={**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        _fail(done.stderr or done.stdout, pins, target)


def _fail(said: str, pins: Sequence[str], target: Target) -> None:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _NOISE.match(line)]
    found = _SECRET_IN_URL.sub("****@", " | ".join(lines[-_LINES_SHOWN:]))
    thing = f"packages for an image with Python {target.python} on linux/{target.architecture}"
    if _PASSING.search(said):
        raise UnavailableError(thing, found=found, remedy="Try again; nothing half-done was kept.")
    raise InputError(
        thing,
        found=found,
        wanted=f"a wheel of each: {', '.join(pins)}",
        remedy="Let pip's settings (pip config list) name an index or folder that has them; build a wheel where "
        "there is only a source (pip wheel).",
    )
