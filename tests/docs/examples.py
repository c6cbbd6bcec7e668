"""Examples in the docs: finds the marked blocks, and what their files say. Run as a program it updates the pages."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXAMPLES = REPOSITORY / "docs" / "examples"
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])

_EXAMPLE = re.compile(
    r"(?P<mark><!-- example: (?P<file>\S+)(?: (?P<name>\S+))? -->\n```\w+\n)(?P<text>(?:.*?\n)??)```$",
    re.M | re.S,
)
_RUN = re.compile(r"<!-- run -->\n```bash\n(.*?)\n```$", re.M | re.S)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)\n```$", re.M | re.S)


def source_of(file: str, name: str | None) -> str:
    """Return what stands between a file's marks, or all of it."""
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    if name is not None:
        found = re.search(rf"^ *# \[START {name}\]\n(.*?)^ *# \[END {name}\]$", text, re.M | re.S)
        assert found, f"{file} has no part {name}"
        text = found.group(1)
    return textwrap.dedent(text).strip("\n")


def updated(page: str) -> str:
    """Return a page with every marked block as its file has it."""
    return _EXAMPLE.sub(lambda m: f"{m['mark']}{source_of(m['file'], m['name'])}\n```", page)


def used_parts(page: str) -> set[tuple[str, str | None]]:
    """Return (file, part) of every marked block."""
    return {(match["file"], match["name"]) for match in _EXAMPLE.finditer(page)}


def blocks(page: str, language: str | None = None) -> list[str]:
    """Return the code blocks of a page, those of one language if one is named."""
    return [text for found, text in _BLOCK.findall(page) if language in (None, found)]


def commands(page: str) -> list[str]:
    """Return the blocks that are marked to be run."""
    return _RUN.findall(page)


def without_blocks(page: str) -> str:
    """Return a page's prose."""
    return _BLOCK.sub("", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
