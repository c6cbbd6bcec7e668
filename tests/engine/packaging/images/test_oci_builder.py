"""Against a real registry, and with the marker docker, a real engine."""

from __future__ import annotations

import http.client
import json
import os
import socket
import uuid

import pytest

from airflow_model_deploy.engine.containers import Credentials
from airflow_model_deploy.engine.errors import UnavailableError
from airflow_model_deploy.engine.packaging.images import File, Folder, ImageSpec, Layer, Settings
from tests.engine.packaging.images.conftest import CHUNK, builder, serve_base
from tests.engine.packaging.images.servers import Server, once, running
from tests.engine.packaging.images.test_registry_auth import BASIC, PASSWORD, Tokens
from tests.engine.packaging.images.test_registry_faults import LAYER_BYTES, is_chunk

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def ask(host, method, path):
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request(method, path, headers={"Accept": MANIFEST})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.fixture
def place(real_registry):
    """A repository of its own, emptied in the end."""
    repository = f"test-images/{uuid.uuid4().hex[:12]}"
    yield f"{real_registry}/{repository}"
    for tag in tags(real_registry, repository):
        digest = ask(real_registry, "HEAD", f"/v2/{repository}/manifests/{tag}")[1]["Docker-Content-Digest"]
        ask(real_registry, "DELETE", f"/v2/{repository}/manifests/{digest}")


@pytest.fixture
def proxy(real_registry):
    with running(Server(upstream=real_registry)) as state:
        yield state


@pytest.fixture
def python_base(real_registry):
    return f"{real_registry}/python:3.11-slim"


def through(proxy, reference):
    """The same image or repository, by way of the proxy."""
    return f"{proxy.host}/{reference.partition('/')[2]}"


def tags(host, repository):
    status, _, body = ask(host, "GET", f"/v2/{repository}/tags/list")
    return (json.loads(body)["tags"] or []) if status == 200 else []


def check(place, built):
    host, _, repository = place.partition("/")
    status, headers, body = ask(host, "GET", f"/v2/{repository}/manifests/{built.tag}")
    assert (status, headers["Docker-Content-Digest"]) == (200, built.digest)
    manifest = json.loads(body)
    for entry in (manifest["config"], *manifest["layers"]):
        status, headers, _ = ask(host, "HEAD", f"/v2/{repository}/blobs/{entry['digest']}")
        assert (status, int(headers["Content-Length"])) == (200, entry["size"])


def test_a_model_moves_its_own_bytes_only(place, spec_on, python_base, weights):
    runtime = builder().build(spec_on(python_base, "runtime"), f"{place}", log=lambda _: None)
    layers = (Layer("model", (File("servable/w", weights),), compressed=False),)
    spec = ImageSpec(runtime.reference, layers, Settings(), "model")
    first = builder().build(spec, place, log=lambda _: None)
    weights.write_bytes(os.urandom(weights.stat().st_size))
    changed = builder().build(spec, place, log=lambda _: None)
    check(place, changed)
    assert first.digest != changed.digest
    assert changed.uploaded_bytes <= weights.stat().st_size + 64 * 1024
    again = builder().build(spec, place, log=lambda _: None)
    assert (again.existed, again.uploaded_bytes, again.digest) == (True, 0, changed.digest)


def test_two_places_one_digest(place, python_base, tmp_path):
    """Other folders, times, masks and destinations; a layout and a registry."""
    builts = []
    for number, destination in enumerate((place, f"oci-layout:{tmp_path}/out")):
        before = os.umask(0o077 if number else 0o022)
        try:
            folder = tmp_path / f"checkout {number}"
            folder.mkdir()
            (folder / "main.py").write_bytes(b"print(1)\n")
            (folder / "w").write_bytes(bytes(range(256)) * 100)
            os.utime(folder / "w", (number, number))
        finally:
            os.umask(before)
        layers = (
            Layer("code", (Folder("run/app", 0o700, 1, 1), File("opt/main.py", folder / "main.py"))),
            Layer("model", (File("servable/w", folder / "w"),), compressed=False),
        )
        spec = ImageSpec(python_base, layers, Settings(env={"B": "2", "A": "1"}), "model")
        builts.append(builder().build(spec, destination, log=lambda _: None))
    assert builts[0].digest == builts[1].digest
    assert builts[0].tag == builts[1].tag


def test_a_base_of_another_registry_is_streamed_over(place, registry, spec_on):
    serve_base(registry)
    built = builder().build(spec_on(f"{registry.host}/base:1"), place, log=lambda _: None)
    check(place, built)


def test_a_chunk_that_never_reached_the_registry_is_sent_again_alone(proxy, place, spec_on, python_base):
    """As behind a proxy that holds a request until it is whole."""
    half = CHUNK // 2

    def kill(handler):
        handler.take(half)
        handler.cut()

    proxy.fault = once(is_chunk(2), kill)
    built = builder().build(spec_on(through(proxy, python_base)), through(proxy, place), log=lambda _: None)
    assert proxy.fault.happened()
    check(place, built)
    assert proxy.received("PATCH") == LAYER_BYTES + half
    starts = [s.headers["Content-Range"].split("-")[0] for s in proxy.log if s.method == "PATCH"]
    assert starts == [str(CHUNK * n) for n in (0, 1, 2, 2, 3, 4)]


def test_a_connection_killed_in_a_chunk_that_had_begun_to_arrive(proxy, place, spec_on, python_base):
    def half_then_kill(handler):
        with socket.create_connection(proxy.upstream.rsplit(":", 1)) as upstream:
            lines = [f"PATCH {handler.path} HTTP/1.1", *(f"{k}: {v}" for k, v in handler.headers.items())]
            upstream.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + handler.take(CHUNK // 2))
        handler.cut()

    proxy.fault = once(is_chunk(2), half_then_kill)
    spec = spec_on(through(proxy, python_base))
    built = builder(patience_s=10).build(spec, through(proxy, place), log=lambda _: None)
    assert proxy.fault.happened()
    check(place, built)


def test_tokens_that_end_in_the_middle_of_a_push(proxy, place, spec_on, python_base):
    proxy.fault = tokens = Tokens(proxy, uses=4)
    who = [Credentials(proxy.host, "robot", PASSWORD)]
    spec = spec_on(through(proxy, python_base))
    built = builder(who).build(spec, through(proxy, place), log=lambda _: None)
    assert len(tokens.scopes) > 3
    check(place, built)
    assert proxy.count("POST", "mount=") == 1


def test_a_registry_that_dies_for_good_leaves_no_tag(proxy, place, spec_on, python_base, real_registry):
    spec, dead = spec_on(through(proxy, python_base)), [False]

    def die(handler):
        dead[0] = dead[0] or is_chunk(2)(handler)
        if dead[0]:
            handler.cut()

    proxy.fault = die
    with pytest.raises(UnavailableError, match=proxy.host):
        builder(patience_s=0.5).build(spec, through(proxy, place), log=lambda _: None)
    assert tags(real_registry, place.partition("/")[2]) == []
    proxy.fault = None
    built = builder().build(spec, through(proxy, place), log=lambda _: None)
    check(place, built)


@pytest.mark.docker
def test_the_image_runs_on_an_engine(proxy, place, spec_on, python_base):
    import docker

    proxy.fault = Tokens(proxy)
    who = [Credentials(proxy.host, "robot", PASSWORD)]
    program = (
        "import os; s = os.stat('/run/app'); print(len(open('/servable/weights.bin', 'rb').read()), os.getuid(), "
        "oct(s.st_mode & 0o777), s.st_uid, os.environ['A'], open('/opt/app/main.py').read().strip())"
    )
    spec = spec_on(through(proxy, python_base), command=("python3", "-c", program))
    built = builder(who).build(spec, through(proxy, place), log=lambda _: None)
    client = docker.from_env()
    reference = f"{place}@{built.digest}"
    image = client.images.pull(place, tag=built.digest)
    try:
        assert image.id == built.image_id
        said = client.containers.run(
            reference,
            remove=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            name=f"e-{built.tag}",
        )
        assert said.decode().split() == ["300000", "65532", "0o700", "65532", "1", "print(1)"]
        told = json.dumps([image.attrs, image.history()])
        assert PASSWORD not in told
        assert BASIC not in told
        assert image.attrs["Config"]["Healthcheck"]["Test"] == ["CMD", "true"]
    finally:
        client.images.remove(reference, force=True)
        client.close()
