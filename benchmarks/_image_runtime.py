"""The runtime image: what it weighs package by package, what its bytecode is worth, whether it is reproducible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import _image_layout
from benchmarks._claims import Found
from benchmarks._image_command import image
from benchmarks._image_model import Models
from benchmarks._steps import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.images import ImageSpec

MOST_MB, MOST_GZ_MB = 100, 34
_MB = 1e6
# Two places that differ in all that could get into an image by mistake.
_PLACES = (
    {"TZ": "UTC", "LANG": "C.UTF-8", "PYTHONHASHSEED": "1"},
    {"TZ": "Asia/Tokyo", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "2", "SOURCE_DATE_EPOCH": "1"},
)


def measure(folder: Path, *, quick: bool, registry: str) -> Found:  # noqa: ARG001 - every part is called alike
    """Build twice in two places, weigh the layers, start the server with and without bytecode."""
    from airflow_model_deploy.engine.packaging.images.contents import runtime_spec
    from airflow_model_deploy.engine.packaging.images.contents.target import target

    found = Found()
    base = _image_layout.write_empty_base(folder / "base", target().architecture)
    say("runtime: two builds in two places")
    built = [_build(folder / name, base, place) for name, place in zip(("a", "b/c"), _PLACES, strict=True)]
    digests = sorted({digest for _, digest in built})
    layout, digest = built[0]
    sizes = _image_layout.layer_sizes(layout, digest)
    for name, size in zip(("packages", "server"), sizes, strict=True):
        found.rows.append({"part": "runtime", "layer": name, **{k: _mb(v) for k, v in size.items()}})
    say("runtime: package by package")
    spec = runtime_spec(base, scratch=folder / "a" / "scratch")
    found.rows.extend(_package_rows(folder, spec))
    say("runtime: start with and without bytecode")
    found.rows.extend(_start_rows(folder, spec, 2 if quick else 7))
    found.claim("runtime_layers_mb", sum(size["unpacked"] for size in sizes) / _MB, most=MOST_MB)
    found.claim("runtime_layers_gz_mb", sum(size["travels"] for size in sizes) / _MB, most=MOST_GZ_MB)
    found.claim("reproducible", float(len(digests) == 1), least=1, digests=digests)
    return found


def _build(folder: Path, base: str, place: dict[str, str]) -> tuple[Path, str]:
    folder.mkdir(parents=True)
    layout = folder / "layout"
    options = ("--base", base, "--destination", f"oci-layout:{layout}", "--scratch", folder / "scratch")
    built, cost = image("runtime", *options, environment=place)
    say(f"  {folder.name}: {cost.wall:.0f} s")
    return layout, built["digest"]


def _package_rows(folder: Path, spec: ImageSpec) -> Iterator[dict[str, object]]:
    from airflow_model_deploy.engine.packaging.host_release import SERVER_NEEDS
    from airflow_model_deploy.engine.packaging.images.contents.packages import pip_install
    from airflow_model_deploy.engine.packaging.images.contents.pins import pins
    from airflow_model_deploy.engine.packaging.images.contents.target import target

    whole = folder / "untrimmed"
    pip_install(pins((*SERVER_NEEDS, "click")), target(), whole)
    before = _by_top((path.relative_to(whole).parts, path.stat().st_size) for path in _files(whole))
    entries = [(tuple(path.split("/")[2:]), size) for path, size in _contents(spec)]
    after = _by_top((parts, size) for parts, size in entries if not parts[-1].endswith(".pyc"))
    bytecode = _by_top((parts, size) for parts, size in entries if parts[-1].endswith(".pyc"))
    for name in sorted(before, key=lambda name: -before[name]):
        mb = {"as_installed": before[name], "trimmed": after.get(name, 0), "bytecode": bytecode.get(name, 0)}
        yield {"part": "runtime", "package": name, "unit": "MB", **{k: _mb(v) for k, v in mb.items()}}
    totals = {
        "as_installed": sum(before.values()),
        "trimmed": sum(after[name] for name in after if name in before),
    }
    yield {
        "part": "runtime",
        "package": "all",
        "unit": "MB",
        **{k: _mb(v) for k, v in totals.items()},
        "bytecode": _mb(sum(bytecode.values())),
    }


def _by_top(entries: Iterable[tuple[tuple[str, ...], int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for parts, size in entries:
        found[parts[0]] = found.get(parts[0], 0) + size
    return found


def _start_rows(folder: Path, spec: ImageSpec, turns: int) -> Iterator[dict[str, object]]:
    models = Models(folder / "model", 1 << 16)
    models.write()
    servable, homes = models.servable(0), {}
    for name in ("with bytecode", "without bytecode"):
        homes[name] = folder / name
        _lay_out(spec, homes[name], skip=".pyc" if name.startswith("without") else None)
    seconds: dict[str, list[float]] = {name: [] for name in homes}
    for turn in range(turns):
        for name in homes if turn % 2 == 0 else reversed(homes):
            seconds[name].append(_start(homes[name], servable, folder / "ready.json"))
    for name, values in seconds.items():
        yield {"part": "runtime", "start": name, "least_wall_s": round(min(values), 3), "turns": turns}


def _start(home: Path, servable: Path, ready: Path) -> float:
    ready.unlink(missing_ok=True)
    # -S, and the interpreter itself instead of a venv's link: nothing but the standard library and the image's files.
    argv = [os.path.realpath(sys.executable), "-S", "-m", "model_server", "--servable", str(servable)]
    environment = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [*argv, "--ready-file", str(ready)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            time.sleep(0.002)
        return time.monotonic() - begin
    finally:
        process.terminate()
        process.wait()


def _lay_out(spec: ImageSpec, home: Path, *, skip: str | None) -> None:
    for path, source in _sources(spec):
        if skip is None or not path.endswith(skip):
            target = home.joinpath(*path.split("/")[2:])
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                target.write_bytes(source)
            else:
                shutil.copyfile(source, target)


def _contents(spec: ImageSpec) -> Iterator[tuple[str, int]]:
    for path, source in _sources(spec):
        yield path, len(source) if isinstance(source, bytes) else source.stat().st_size


def _sources(spec: ImageSpec) -> Iterator[tuple[str, Path | bytes]]:
    from airflow_model_deploy.engine.packaging.images import File

    for layer in spec.layers:
        for entry in layer.entries:
            if isinstance(entry, File):
                yield entry.path, entry.source


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _mb(size: float) -> float:
    return round(size / _MB, 2)
