"""What is between us and a registry: certificates and proxies."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import time
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_model_deploy.engine.errors import InputError
from tests.engine.packaging.images.conftest import builder, serve_base
from tests.engine.packaging.images.servers import Server, running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(file, server's TLS context) of an authority that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


@pytest.fixture
def stored_behind_tls(registry, certificate):
    """A registry that sends readers of blobs to a storage with TLS."""
    serve_base(registry)
    with running(Server(blobs=registry.blobs), certificate[1]) as storage:

        def redirect(handler):
            if handler.command == "GET" and "/blobs/" in handler.path:
                handler.answer(307, {"Location": f"https://{storage.host}{handler.path}"})
                return True
            return False

        registry.fault = redirect
        yield storage


def build(spec_on, registry, tmp_path, **options):
    return builder(**options).build(
        spec_on(f"{registry.host}/base:1"), f"oci-layout:{tmp_path}/out", log=lambda _: None
    )


def test_an_authority_of_ones_own(stored_behind_tls, registry, spec_on, tmp_path, certificate):
    built = build(spec_on, registry, tmp_path, ca_cert=str(certificate[0]))
    assert stored_behind_tls.count("GET") == 2  # config and layer
    assert (tmp_path / "out/blobs/sha256" / built.image_id[7:]).is_file()


def test_a_certificate_that_is_not_trusted_is_told_at_once(stored_behind_tls, registry, spec_on, tmp_path):
    started = time.monotonic()
    with pytest.raises(InputError, match=r"isn't trusted.*ca_cert") as caught:
        build(spec_on, registry, tmp_path, patience_s=30)
    assert time.monotonic() - started < 5
    assert stored_behind_tls.host in str(caught.value)


def test_certificates_that_can_not_be_read(stored_behind_tls, registry, spec_on, tmp_path):
    (tmp_path / "bad.pem").write_text("no certificate")
    for path in ("gone.pem", "bad.pem"):
        with pytest.raises(InputError, match=path):
            build(spec_on, registry, tmp_path, ca_cert=str(tmp_path / path))


def test_a_registry_behind_a_proxy(registry, spec_on, base_layout, monkeypatch):
    """Plain HTTP because it was named; through the proxy that the environment names."""
    monkeypatch.setenv("http_proxy", f"http://{registry.host}")
    monkeypatch.setenv("no_proxy", "")
    seen = set()

    def as_proxy(handler):
        parts = urlsplit(handler.path)
        seen.add(parts.netloc)
        handler.path = parts.path + (f"?{parts.query}" if parts.query else "")
        return False

    registry.fault = as_proxy
    built = builder(insecure=("registry.example:5000",)).build(
        spec_on(base_layout), "registry.example:5000/a/b", log=lambda _: None
    )
    assert seen == {"registry.example:5000"}
    assert registry.tags("a/b") == [built.tag]


def test_plain_http_to_a_token_server_elsewhere_is_refused(registry, spec_on, base_layout):
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.example/token",service="x"'}
    registry.fault = lambda h: h.refuse(401, "UNAUTHORIZED", headers=challenge) or True
    with pytest.raises(InputError, match=r"plain HTTP to tokens\.example"):
        builder().build(spec_on(base_layout), f"{registry.host}/a/b", log=lambda _: None)
