from __future__ import annotations

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images import parse_reference, parse_repository
from airflow_model_deploy.engine.packaging.images.reference import is_loopback

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("python", "docker.io", "library/python", None, None),
        ("python:3.11-slim", "docker.io", "library/python", "3.11-slim", None),
        ("me/app", "docker.io", "me/app", None, None),
        ("docker.io/python", "docker.io", "library/python", None, None),
        ("index.docker.io/me/app:1", "docker.io", "me/app", "1", None),
        ("registry-1.docker.io/me/app", "docker.io", "me/app", None, None),
        ("MyHost/app", "MyHost", "app", None, None),
        ("localhost/app", "localhost", "app", None, None),
        ("localhost:5000/a/b/c:1", "localhost:5000", "a/b/c", "1", None),
        ("registry.example/app@" + DIGEST, "registry.example", "app", None, DIGEST),
        ("registry.example:443/app:1@" + DIGEST, "registry.example:443", "app", "1", DIGEST),
        ("[::1]:5000/app", "[::1]:5000", "app", None, None),
    ],
)
def test_names_are_read_as_docker_reads_them(text, registry, repository, tag, digest):
    found = parse_reference(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert parse_reference(str(found)) == found


def test_what_is_asked_for():
    assert parse_reference("python").wanted == "latest"
    assert parse_reference("python").api_host == "registry-1.docker.io"
    assert parse_reference(f"a.b/c:1@{DIGEST}").wanted == DIGEST


@pytest.mark.parametrize(
    ("text", "path", "tag", "digest"),
    [
        ("oci-layout:/a/b", "/a/b", None, None),
        ("oci-layout:/a/b:1", "/a/b", "1", None),
        ("oci-layout:/a:b/c", "/a:b/c", None, None),
        (f"oci-layout:/a b@{DIGEST}", "/a b", None, DIGEST),
    ],
)
def test_layouts(text, path, tag, digest):
    found = parse_reference(text)
    assert (str(found.path), found.tag, found.digest) == (path, tag, digest)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Upper",
        "a.b/Upper",
        "a.b/",
        "a.b/c:",
        "a.b/c@sha256:12",
        "a.b/c@md5:" + "0" * 32,
        "a.b/../c",
        "a.b/c d",
        "http://a.b/c",
        "user:pass@a.b/c",
        "oci-layout:relative",
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(InputError):
        parse_reference(text)


@pytest.mark.parametrize("text", ["a.b/c:1", f"a.b/c@{DIGEST}", "oci-layout:/a:1"])
def test_a_destination_has_no_tag(text):
    with pytest.raises(InputError, match="without tag and digest"):
        parse_repository(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.8.8", True),
        ("[::1]:5000", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_a_password_in_a_name_is_not_repeated():
    with pytest.raises(InputError) as caught:
        parse_reference("https://user:hunter2@registry.example/app")
    assert "hunter2" not in str(caught.value)
