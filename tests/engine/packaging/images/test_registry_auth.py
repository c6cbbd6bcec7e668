from __future__ import annotations

import base64
import logging
import secrets
import time
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_model_deploy.engine.containers import Credentials
from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError
from tests.engine.packaging.images.conftest import builder, serve_base
from tests.engine.packaging.images.servers import once

PASSWORD = "hunter2-very-secret"  # noqa: S105
BASIC = "Basic " + base64.b64encode(f"robot:{PASSWORD}".encode()).decode()


class Tokens:
    """Lets nobody pass without a token that it gave and that has not ended."""

    def __init__(self, registry, *, expires_in=300, uses=None, wants=BASIC):
        self.registry, self.expires_in, self.uses, self.wants = registry, expires_in, uses, wants
        self.given, self.scopes = {}, []

    def __call__(self, handler):
        if handler.path.startswith("/token"):
            return self.give(handler) or True
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.given.get(token, 0) > 0:
            self.given[token] -= 1
            return False
        realm = f'Bearer realm="http://{self.registry.host}/token",service="reg",scope="x"'
        handler.refuse(401, "UNAUTHORIZED", headers={"WWW-Authenticate": realm})
        return True

    def give(self, handler):
        if self.wants and handler.headers.get("Authorization") != self.wants:
            return handler.refuse(401, "UNAUTHORIZED", "wrong password")
        query = parse_qsl(urlsplit(handler.path).query)
        self.scopes.append([value for name, value in query if name == "scope"])
        token = secrets.token_hex(8)
        self.given[token] = self.uses or 10**6
        body = f'{{"token":"{token}","expires_in":{self.expires_in}}}'.encode()
        return handler.answer(200, body=body)


def credentials(registry, password=PASSWORD):
    return [Credentials(registry.host, "robot", password)]


@pytest.fixture
def spec(spec_on, base_layout):
    return spec_on(base_layout)


def push(spec, registry, who=(), **options):
    return builder(who, **options).build(spec, f"{registry.host}/a/b", log=lambda _: None)


def test_tokens(registry, spec_on):
    registry.fault = tokens = Tokens(registry)
    serve_base(registry)
    built = push(spec_on(f"{registry.host}/base:1"), registry, credentials(registry))
    assert registry.tags("a/b") == [built.tag]
    assert tokens.scopes == [
        ["repository:base:pull"],
        ["repository:a/b:pull,push", "repository:base:pull"],
    ]


def test_a_token_server_that_knows_only_one_repository_costs_the_mount(registry, spec_on):
    tokens = Tokens(registry)
    serve_base(registry)

    def fault(handler):
        if handler.path.startswith("/token") and handler.path.count("scope=") > 1:
            handler.refuse(403, "DENIED")
            return True
        return tokens(handler)

    registry.fault = fault
    built = push(spec_on(f"{registry.host}/base:1"), registry, credentials(registry))
    assert registry.tags("a/b") == [built.tag]


def test_anonymous_tokens(registry, spec):
    registry.fault = Tokens(registry, wants=None)
    push(spec, registry)
    assert all("Authorization" not in s.headers for s in registry.log if s.path.startswith("/token"))


@pytest.mark.parametrize("uses", [3, 7])
def test_a_token_that_ends_in_the_middle_of_a_push_is_renewed(uses, registry, spec):
    registry.fault = tokens = Tokens(registry, uses=uses)
    built = push(spec, registry, credentials(registry))
    assert registry.tags("a/b") == [built.tag]
    assert len(tokens.scopes) > 1
    taken = [s for s in registry.log if s.method == "PATCH" and s.headers["Content-Range"].startswith("0-")]
    assert len(taken) <= 2  # refused before the body, then resumed: never from the start again


def test_a_token_is_renewed_before_it_ends(registry, spec):
    registry.fault = tokens = Tokens(registry, expires_in=0.4)
    slow = once(lambda h: h.command == "PATCH", lambda h: time.sleep(0.5) or False)
    registry.fault = lambda h: slow(h) or tokens(h)
    push(spec, registry, credentials(registry))
    assert sum("Bearer" in s.headers.get("Authorization", "") for s in registry.log) > 0
    assert len(tokens.scopes) == 2


def test_basic(registry, spec):
    challenge = {"WWW-Authenticate": 'Basic realm="registry"'}
    registry.fault = lambda h: (
        h.headers.get("Authorization") != BASIC and (h.refuse(401, "U", headers=challenge) or True)
    )
    push(spec, registry, credentials(registry))
    assert sum("Authorization" not in seen.headers for seen in registry.log) == 1
    for who in ((), credentials(registry, "wrong-password")):
        with pytest.raises(InputError, match="not allowed") as caught:
            push(spec, registry, who)
        assert "wrong-password" not in str(caught.value)


def test_a_wrong_password_is_told_once_and_not_repeated(registry, spec, caplog):
    caplog.set_level(logging.DEBUG)
    registry.fault = Tokens(registry)
    with pytest.raises(InputError, match=r"gives no token.*'robot'") as caught:
        push(spec, registry, credentials(registry, "wrong-password"))
    assert registry.count("GET", "/token") == 1
    assert "wrong-password" not in str(caught.value) + caplog.text


def test_a_user_without_the_right_is_told(registry, spec):
    registry.fault = lambda h: h.command == "POST" and (h.refuse(403, "DENIED", "requested access") or True)
    with pytest.raises(InputError, match=r"is not allowed.*DENIED"):
        push(spec, registry)


def test_a_token_that_is_refused_for_ever_ends_as_a_refusal(registry, spec):
    tokens = Tokens(registry)
    header = {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token"'}

    def fault(handler):
        if handler.command == "PATCH":
            handler.refuse(401, "UNAUTHORIZED", headers=header)
            return True
        return tokens(handler)

    registry.fault = fault
    with pytest.raises(InputError, match="not allowed"):
        push(spec, registry, credentials(registry), patience_s=20)
    assert registry.tags("a/b") == []


def test_a_token_server_that_fails_for_a_while(registry, spec):
    tokens = Tokens(registry)
    busy = once(lambda h: h.path.startswith("/token"), lambda h: h.refuse(503, "BUSY"))
    registry.fault = lambda h: busy(h) or tokens(h)
    push(spec, registry, credentials(registry))
    assert busy.happened()


def test_storage_behind_a_redirect_never_sees_who_we_are(registry, other_registry, spec_on, tmp_path):
    manifest = serve_base(registry)
    other_registry.blobs = {("base", digest): data for (_, digest), data in registry.blobs.items()}
    tokens = Tokens(registry)

    def fault(handler):
        if tokens(handler):
            return True
        if handler.command == "GET" and "/base/blobs/" in handler.path:
            handler.answer(307, {"Location": f"http://{other_registry.host}{handler.path}"})
            return True
        return False

    registry.fault = fault
    built = builder(credentials(registry)).build(
        spec_on(f"{registry.host}/base:1"), f"oci-layout:{tmp_path}/out", log=lambda _: None
    )
    assert built.base_digest == manifest.digest
    assert other_registry.log
    assert not any("Authorization" in seen.headers for seen in other_registry.log)


def test_storage_can_not_ask_for_the_password(registry, other_registry, spec_on, tmp_path):
    serve_base(registry)
    tokens = Tokens(registry)
    evil = f'Bearer realm="http://{other_registry.host}/token",service="x"'
    other_registry.fault = lambda h: h.refuse(401, "UNAUTHORIZED", headers={"WWW-Authenticate": evil}) or True

    def fault(handler):
        if tokens(handler):
            return True
        if "/blobs/" in handler.path:
            handler.answer(307, {"Location": f"http://{other_registry.host}{handler.path}"})
            return True
        return False

    registry.fault = fault
    with pytest.raises(InputError, match="not allowed"):
        builder(credentials(registry)).build(
            spec_on(f"{registry.host}/base:1"), f"oci-layout:{tmp_path}/out", log=lambda _: None
        )
    assert not any("Authorization" in seen.headers for seen in other_registry.log)
    assert other_registry.count("GET", "/token") == 0


def test_credentials_of_another_registry_stay_at_home(registry, other_registry, spec):
    registry.fault = Tokens(registry, wants=None)
    push(spec, registry, credentials(other_registry))
    assert not any("Basic" in seen.headers.get("Authorization", "") for seen in registry.log)


def test_a_password_is_nowhere_in_what_was_built_logged_or_raised(registry, spec, caplog):
    caplog.set_level(logging.DEBUG)
    registry.fault = tokens = Tokens(registry)
    lines = []
    who = credentials(registry)
    built = builder(who).build(spec, f"{registry.host}/a/b", log=lines.append)
    registry.fault = lambda h: (h.command == "HEAD" and (h.refuse(500, "X") or True)) or tokens(h)
    registry.manifests.clear()
    with pytest.raises(UnavailableError) as caught:
        builder(who, patience_s=0.2).build(spec, f"{registry.host}/a/b", log=lines.append)
    stored = b"".join([*registry.blobs.values(), *(data for _, data in registry.manifests.values())])
    told = "\n".join([*lines, caplog.text, str(caught.value), repr(caught.value), repr(built), repr(who)])
    for secret in (PASSWORD, BASIC, *tokens.given):
        assert secret.encode() not in stored
        assert secret not in told


def test_signed_addresses_are_not_logged(registry, other_registry, spec_on, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    serve_base(registry)
    address = f"http://{other_registry.host}/gone?X-Signature=s3cr3t"
    registry.fault = lambda h: "/blobs/" in h.path and (h.answer(307, {"Location": address}) or True)
    with pytest.raises(ModelDeployError) as caught:
        builder().build(spec_on(f"{registry.host}/base:1"), f"oci-layout:{tmp_path}/out", log=lambda _: None)
    assert "s3cr3t" not in str(caught.value) + caplog.text
