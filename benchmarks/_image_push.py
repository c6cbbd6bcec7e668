"""A changed model on a known runtime: the bytes that move and the CPU of the push, with `docker` beside it."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from typing import TYPE_CHECKING, Any

from benchmarks import _image_layout
from benchmarks._claims import Found
from benchmarks._image_command import Cost, image, timed
from benchmarks._image_model import Models, model_bytes
from benchmarks._image_relay import relay
from benchmarks._steps import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST_OVER_MODEL, MOST_CPU = 64 * 1024, 3
_SIZE, _QUICK_SIZE = 500_000_000, 64_000_000
# What every push has to do at least: read the file, hash it and write it somewhere.
_COPY_AND_HASH = """
import hashlib, sys
found, piece = hashlib.sha256(), bytearray(1 << 20)
view = memoryview(piece)
with open(sys.argv[1], "rb", buffering=0) as source, open(sys.argv[2], "wb", buffering=0) as target:
    while size := source.readinto(piece):
        found.update(view[:size])
        target.write(view[:size])
print(found.hexdigest())
"""


def measure(folder: Path, *, quick: bool, registry: str) -> Found:
    """Push a runtime once, then changed models."""
    found = Found()
    if not registry:
        for name, most in (("bytes_moved", MOST_OVER_MODEL), ("push_cpu", MOST_CPU)):
            told = {"left_out": "no registry: give --registry or TESTBED_REGISTRY"}
            found.claims.append({"claim": name, "value": None, "bound": most, "holds": False, **told})
        return found
    from airflow_model_deploy.engine.packaging.images.contents.target import target

    base = _image_layout.write_empty_base(folder / "base", target().architecture)
    repository = f"benchmark-image/{uuid.uuid4().hex[:8]}"
    say("push: the runtime")
    options = ("--base", base, "--scratch", folder / "scratch")
    built, _ = image("runtime", *options, "--destination", f"{registry}/{repository}/runtime")
    runtime = f"{repository}/runtime@{built['digest']}"
    say("push: a model of random weights")
    models = Models(folder / "models", _QUICK_SIZE if quick else _SIZE)
    models.write()
    _bytes_moved(found, models, registry, runtime)
    _cpu(found, models, registry, runtime, 1 if quick else 3)
    return found


def _push(registry: str, runtime: str, servable: Path) -> tuple[dict[str, object], Cost]:
    repository = runtime.partition("/runtime@")[0]
    where = ("--base", f"{registry}/{runtime}", "--destination", f"{registry}/{repository}/model")
    return image("model", *where, "--servable", servable)


def _bytes_moved(found: Found, models: Models, registry: str, runtime: str) -> None:
    say("push: counting bytes")
    small = Models(models.folder.with_name("small"), _QUICK_SIZE)
    small.write()
    _push(registry, runtime, small.servable(0))
    changed = small.servable(1)
    with relay(registry) as counted:
        built, _ = _push(f"127.0.0.1:{counted.port}", runtime, changed)
        moved = dict(counted.counts)
    size = model_bytes(changed)
    told: dict[str, Any] = {"model_bytes": size, **moved, "told_by_the_builder": built["uploaded_bytes"]}
    found.rows.append({"part": "push", "name": "bytes of a changed model", **told})
    found.claim("bytes_moved", moved["up"] + moved["down"] - size, most=MOST_OVER_MODEL, **told)


def _cpu(found: Found, models: Models, registry: str, runtime: str, turns: int) -> None:
    ours: list[Cost] = []
    least: list[Cost] = []
    docker: list[Cost] = []
    for number in range(turns):
        say(f"push: turn {number + 1} of {turns}")
        servable = models.servable(number)
        size = model_bytes(servable)
        ours.append(_push(registry, runtime, servable)[1])
        least.append(_copy_and_hash(servable / "model.onnx", models.folder / "copy"))
        docker += _docker(servable, registry, runtime, number)
        shutil.rmtree(servable)
    names = {"oci": ours, "copy and hash": least, "docker build and push": docker}
    for name, costs in names.items():
        if costs:
            found.rows.append({"part": "push", "name": name, "model_bytes": size, **_least(costs)})
    if docker:
        ratio = _least(ours)["wall_s"] / _least(docker)["wall_s"]
        found.rows.append({"part": "push", "name": "oci to docker, wall", "ratio": round(ratio, 3)})
    else:
        left_out = "no engine: DOCKER_HOST isn't set, or there is no docker on PATH"
        found.rows.append({"part": "push", "name": "docker build and push", "left_out": left_out})
    found.claim("push_cpu", _least(ours)["cpu_s"] / _least(least)["cpu_s"], most=MOST_CPU, turns=turns)


def _copy_and_hash(path: Path, copy: Path) -> Cost:
    _, cost = timed([sys.executable, "-S", "-c", _COPY_AND_HASH, str(path), str(copy)])
    copy.unlink()
    return cost


def _docker(servable: Path, registry: str, runtime: str, number: int) -> list[Cost]:
    """What a person would type. The engine's own CPU isn't seen here: the wall is what compares."""
    docker = shutil.which("docker")
    if docker is None or not os.environ.get("DOCKER_HOST"):
        return []
    context = servable.with_name(f"context-{number}")
    shutil.copytree(servable, context / "servable", copy_function=os.link)
    (context / "Dockerfile").write_text(f"FROM {registry}/{runtime}\nCOPY servable /servable\n")
    tag = f"{registry}/{runtime.partition('/runtime@')[0]}/by-docker:{number}"
    timed([docker, "pull", "-q", f"{registry}/{runtime}"])  # a known runtime
    try:
        _, built = timed([docker, "build", "-q", "-t", tag, str(context)], {"DOCKER_BUILDKIT": "0"})
        _, pushed = timed([docker, "push", "-q", tag])
    finally:
        shutil.rmtree(context)
        timed([docker, "rmi", "-f", tag, f"{registry}/{runtime}"])
    return [Cost(built.cpu + pushed.cpu, built.wall + pushed.wall)]


def _least(costs: Sequence[Cost]) -> dict[str, float]:
    return {
        "cpu_s": round(min(cost.cpu for cost in costs), 3),
        "wall_s": round(min(cost.wall for cost in costs), 3),
    }
