from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import httpx
import pytest

from airflow_model_deploy.engine.containers import Engine, answers, connect, engine_architecture, tunnel
from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError
from tests.engine.containers.served_inside import with_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("unix:///nowhere/docker.sock", UnavailableError, "unix:///nowhere/docker.sock.*No such file"),
        ("tcp://127.0.0.1:1", UnavailableError, "tcp://127.0.0.1:1;.*refused"),
        ("carrier-pigeon://x", InputError, "carrier-pigeon://x.*wanted: unix:///path"),
        ("tcp://no-port", InputError, "port is required"),
    ],
)
def test_an_engine_that_is_not_there_is_named(url: str, kind: type[ModelDeployError], words: str) -> None:
    with pytest.raises(kind, match=words):
        connect(Engine(url, timeout_s=3))
    assert not answers(Engine(url))


def test_something_that_is_no_engine_is_no_engine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = Engine(f"tcp://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)
        with pytest.raises(UnavailableError, match="timed out"):
            connect(engine)


def test_a_certificate_that_is_not_there_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match="certificate"):
        connect(Engine("tcp://127.0.0.1:1", ca_cert="/nowhere/ca.pem"))


@pytest.mark.docker
def test_the_engine_comes_from_the_environment(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(engine)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert not answers(Engine())
    monkeypatch.delenv("DOCKER_HOST")
    assert Engine().address == "unix:///var/run/docker.sock"


@pytest.mark.docker
def test_over_tls_the_engine_must_show_the_right_certificate(engine: Engine, tmp_path: Path) -> None:
    with _tls_front(engine, tmp_path) as url:
        trusted = Engine(url, ca_cert=str(tmp_path / "ca.pem"))
        assert connect(trusted).version()["ApiVersion"]
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            connect(replace(trusted, ca_cert=_another_ca(tmp_path)))
        assert answers(replace(trusted, ca_cert=_another_ca(tmp_path), verify=False))


@pytest.mark.docker
def test_a_tunnel_through_tls_carries_both_ways_at_once(engine: Engine, base: str, tmp_path: Path) -> None:
    """One TLS connection is read and written by two threads."""
    body = bytes(range(256)) * 40_000
    with (
        _tls_front(engine, tmp_path) as url,
        contextlib.closing(connect(Engine(url, ca_cert=str(tmp_path / "ca.pem")))) as client,
        with_server(client, base) as container,
        tunnel(client, container, wait_s=10) as server,
        httpx.Client(base_url=server, timeout=20) as asker,
    ):
        for _ in range(3):
            assert asker.post("/echo", content=body).content == body


def _another_ca(folder: Path) -> str:
    (folder / "other").mkdir(exist_ok=True)
    return str(_certificates(folder / "other")[0])


def _certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "ca.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@contextlib.contextmanager
def _tls_front(engine: Engine, folder: Path) -> Iterator[str]:
    """TLS in front of the engine's unix socket."""
    path = urlparse(engine.address).path
    if not path:
        pytest.skip("the engine is not on a unix socket")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificates(folder))
    loop = asyncio.new_event_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(carry, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        server.close()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


@pytest.mark.docker
def test_the_processor_of_an_engine_is_called_as_images_call_it(engine: Engine) -> None:
    assert engine_architecture(engine) in ("amd64", "arm64")
    with pytest.raises(UnavailableError, match="unix:///nowhere"):
        engine_architecture(Engine("unix:///nowhere/docker.sock"))
