from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from airflow_model_deploy.engine.containers import Engine, Limits, tail
from airflow_model_deploy.engine.errors import GateError, InputError, UnavailableError
from airflow_model_deploy.engine.packaging import bless_image
from airflow_model_deploy.engine.packaging.blessing_container import ROLE_LABEL
from airflow_model_deploy.engine.packaging.images import DockerBuilder, File, ImageSpec, Layer, Settings
from tests.engine.containers.support import remove_images
from tests.engine.packaging.on_engine import build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from docker import APIClient

    from airflow_model_deploy.engine.packaging.images import Built
    from tests.engine.packaging.conftest import Parts

pytestmark = pytest.mark.docker
_LOCAL = "tests-blessing/model"
_LIMITS = Limits(memory_bytes=256 << 20, cpus=1)


@pytest.fixture(scope="module")
def build(client: APIClient, engine: Engine, base: str) -> Iterator[Callable[[Path], Built]]:
    yield lambda servable: build_model(engine, base, servable, _LOCAL)
    remove_images(client, _LOCAL)


@pytest.fixture(scope="module")
def good(
    parts: Parts, build: Callable[[Path], Built], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Built, Path]:
    servable = tmp_path_factory.mktemp("good") / "servable"
    parts.write(servable)
    return build(servable), servable


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)


def _left(client: APIClient) -> list[str]:
    return [c["Id"] for c in client.containers(all=True, filters={"label": f"{ROLE_LABEL}=blessing"})]


def test_an_image_that_keeps_its_promise_is_blessed(
    client: APIClient, engine: Engine, good: tuple[Built, Path], parts: Parts
) -> None:
    image, servable = good
    said: list[str] = []
    blessing = bless_image(
        engine, image.reference, servable, limits=_LIMITS, latency_ms=2000, log=said.append
    )
    assert blessing.passed
    assert blessing.golden_matched == blessing.golden_total == len(parts.golden.requests)
    assert 0 < blessing.max_abs_error <= blessing.tolerance
    assert blessing.bundle_digest == image.digest
    assert 10_000_000 < (blessing.peak_memory_bytes or 0) < _LIMITS.memory_bytes
    assert (blessing.latency_ms or 0) > 0
    assert [line for line in said if "ms on the way through the engine" in line]
    assert _left(client) == []


def test_another_model_than_the_one_that_was_built_is_refused_with_the_differences(
    client: APIClient, engine: Engine, parts: Parts, build: Callable[[Path], Built], tmp_path: Path
) -> None:
    parts.save_affine(tmp_path / "other.onnx", np.ones((4, 3), dtype=np.float32))
    parts.write(tmp_path / "servable", model=tmp_path / "other.onnx")
    image = build(tmp_path / "servable")
    with pytest.raises(GateError, match=r"golden-000: output y\[0, 0\]: got .*, wanted .* \+-"):
        bless_image(engine, image.reference, tmp_path / "servable", limits=_LIMITS, log=print)
    assert _left(client) == []


def test_an_image_of_another_servable_is_refused_though_it_answers_the_same(
    engine: Engine, good: tuple[Built, Path], parts: Parts, tmp_path: Path
) -> None:
    digest = parts.write(tmp_path / "servable", precision="fp32")
    with pytest.raises(
        GateError, match=rf"serves something else; found: model_info says sha256.*wanted: {digest}"
    ):
        bless_image(engine, good[0].reference, tmp_path / "servable", limits=_LIMITS, log=print)


def test_too_little_memory_is_called_by_its_name(engine: Engine, good: tuple[Built, Path]) -> None:
    tiny = Limits(memory_bytes=24 << 20, cpus=1)
    with pytest.raises(GateError, match=r"out of memory \(OOM\); found: killed at its limit of 24 MiB"):
        bless_image(engine, good[0].reference, good[1], limits=tiny, log=print)


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"memory_limit_bytes": 1_000_000}, "too much memory"), ({"latency_ms": 1e-6}, "too slow")],
)
def test_a_limit_that_is_passed_is_a_refusal(
    engine: Engine, good: tuple[Built, Path], limits: dict[str, float], words: str
) -> None:
    with pytest.raises(GateError, match=words):
        bless_image(engine, good[0].reference, good[1], limits=_LIMITS, log=print, **limits)  # type: ignore[arg-type]


def _variant(engine: Engine, image: Built, *files: File, **settings: object) -> str:
    layers = (Layer("variant", files or (File("srv/variant", b""),)),)
    spec = ImageSpec(image.reference, layers, Settings(**settings), "model")  # type: ignore[arg-type]
    return DockerBuilder(engine).build(spec, _LOCAL, log=print).reference


def test_a_server_that_refuses_to_start_is_quoted(engine: Engine, good: tuple[Built, Path]) -> None:
    broken = _variant(engine, good[0], File("servable/model.onnx", b"another one"))
    with pytest.raises(GateError, match=r"ended instead of serving; found: exit code 3.*servable refused"):
        bless_image(engine, broken, good[1], limits=_LIMITS, log=print)


def test_a_program_that_is_not_there_is_a_refusal(
    client: APIClient, engine: Engine, good: tuple[Built, Path]
) -> None:
    broken = _variant(engine, good[0], entrypoint=("no-such-program",))
    with pytest.raises(GateError, match=r"does not start.*no-such-program"):
        bless_image(engine, broken, good[1], limits=_LIMITS, log=print)
    assert _left(client) == []


def test_a_server_that_never_listens_is_given_up_with_its_last_words(
    client: APIClient, engine: Engine, good: tuple[Built, Path]
) -> None:
    program = "import time; print('still loading', flush=True); time.sleep(600)"
    slow = _variant(engine, good[0], entrypoint=("python3", "-c", program))
    with pytest.raises(UnavailableError, match=r"not ready in time; found: 2 s.*still loading"):
        bless_image(engine, slow, good[1], limits=_LIMITS, ready_timeout_s=2, log=print)
    assert _left(client) == []


def test_a_server_that_runs_as_root_is_refused(engine: Engine, good: tuple[Built, Path]) -> None:
    root = _variant(engine, good[0], user="0:0")
    with pytest.raises(GateError, match="runs as root"):
        bless_image(engine, root, good[1], limits=_LIMITS, log=print)


def test_nothing_to_ask_is_no_blessing(
    engine: Engine, parts: Parts, good: tuple[Built, Path], tmp_path: Path
) -> None:
    parts.write(tmp_path / "servable", golden=None)
    with pytest.raises(GateError, match="no golden requests"):
        bless_image(engine, good[0].reference, tmp_path / "servable", limits=_LIMITS, log=print)


def test_a_tag_can_not_be_blessed(engine: Engine, good: tuple[Built, Path]) -> None:
    with pytest.raises(InputError, match="what a tag names may change"):
        bless_image(engine, f"{_LOCAL}:{good[0].tag}", good[1], limits=_LIMITS, log=print)


def test_an_image_that_is_nowhere_is_refused(engine: Engine, good: tuple[Built, Path]) -> None:
    with pytest.raises(InputError, match="not on this engine"):
        bless_image(engine, "sha256:" + "0" * 64, good[1], limits=_LIMITS, log=print)


def test_without_an_engine_nothing_is_blessed(good: tuple[Built, Path]) -> None:
    with pytest.raises(UnavailableError, match="no container engine answers at unix:///nowhere"):
        bless_image(Engine("unix:///nowhere"), good[0].reference, good[1], limits=_LIMITS, log=print)


def test_the_server_ends_with_a_blessing_that_is_killed(
    client: APIClient, engine: Engine, good: tuple[Built, Path]
) -> None:
    """Nobody else would ever stop it."""
    program = (
        "import sys, time\nfrom airflow_model_deploy.engine.containers import *\n"
        "from airflow_model_deploy.engine.packaging.blessing_container import BlessingContainer\n"
        "with BlessingContainer(connect(Engine()), sys.argv[1], Limits(256 << 20, 1)) as c:\n"
        "    print(c.id, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, good[0].reference], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        made = child.stdout.readline().strip()
        _wait(lambda: "serving" in tail(client, made))
        assert client.inspect_container(made)["State"]["Running"]
        os.kill(child.pid, signal.SIGKILL)
    _wait(lambda: not client.inspect_container(made)["State"]["Running"])
    state = client.inspect_container(made)["State"]
    client.remove_container(made, force=True, v=True)
    assert not state["Running"], json.dumps(state)


def test_limits_that_the_engine_has_not_are_said_in_its_words(
    engine: Engine, good: tuple[Built, Path]
) -> None:
    with pytest.raises(InputError, match="CPUs"):
        bless_image(engine, good[0].reference, good[1], limits=replace(_LIMITS, cpus=10_000), log=print)
