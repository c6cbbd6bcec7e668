"""Start the model server of this bundle, after checking that the bundle is what it was when it was packaged.

Usage: python start.py [options of the server]      (--help lists them)
Exit codes: those of the server; 3 also where a file of the bundle is missing, was changed or was added.
Needs nothing but Python's own library and what requirements.txt lists.
"""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True  # a __pycache__ in the bundle would be a file that was added
if not sys.flags.safe_path:
    sys.path.pop(0)  # this folder: nothing in it may pass for a module of Python's before it was checked

import hashlib  # noqa: E402
import os  # noqa: E402
import runpy  # noqa: E402
from pathlib import Path  # noqa: E402

HERE = Path(__file__).resolve().parent
SUMS = "SHA256SUMS"
REFUSED = 3


def listed() -> dict[str, str]:
    """Relative path -> sha256, as SHA256SUMS has it."""
    sums = {}
    for line in (HERE / SUMS).read_text(encoding="utf-8").splitlines():
        sha256, separator, path = line.partition("  ")
        if not separator or len(sha256) != 64 or path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{SUMS} has a line that is no checksum: {line[:120]!r}")
        sums[path] = sha256
    return sums


def present() -> set[str]:
    """Every file of the bundle but SHA256SUMS; a link is refused."""
    found = set()
    for parent, folders, files in os.walk(HERE):
        for name in [*folders, *files]:
            if Path(parent, name).is_symlink():
                raise ValueError(f"{Path(parent, name).relative_to(HERE).as_posix()} is a link")
        found |= {Path(parent, name).relative_to(HERE).as_posix() for name in files}
    return found - {SUMS}


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify() -> None:
    """Compare every file with SHA256SUMS; raises OSError or ValueError with one clear line."""
    sums, files = listed(), present()
    for problem, paths in (("missing", set(sums) - files), ("not listed", files - set(sums))):
        if paths:
            raise ValueError(f"{problem}: {', '.join(sorted(paths)[:5])}")
    for path, wanted in sums.items():
        found = sha256_of(HERE / path)
        if found != wanted:
            raise ValueError(f"changed: {path} has sha256 {found}, wanted {wanted}")


def main() -> None:
    """Verify, then become the server."""
    try:
        verify()
    except (OSError, ValueError) as error:
        print(f"this bundle is refused: {error}; copy it again", file=sys.stderr)
        raise SystemExit(REFUSED) from None
    sys.path.insert(0, str(HERE / "server"))
    # The servable comes last: no option before it can name another one.
    sys.argv = ["model_server", *sys.argv[1:], "--servable", str(HERE / "servable")]
    runpy.run_module("model_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
