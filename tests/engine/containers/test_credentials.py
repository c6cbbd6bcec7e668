from __future__ import annotations

import pytest

from airflow_model_deploy.engine.containers import Credentials, find_credentials, split_registry


@pytest.mark.parametrize(
    ("registry", "reference", "fits"),
    [
        ("registry.example:5000", "registry.example:5000/models/digits:1", True),
        ("https://registry.example:5000/", "registry.example:5000/models/digits@sha256:" + "0" * 64, True),
        ("registry.example", "registry.example:5000/models/digits", False),
        ("registry.example", "evil.registry.example/models", False),
        ("registry.example", "registry.example.evil/models", False),
        ("gitlab.example/group", "gitlab.example/group/app:1", True),
        ("gitlab.example/group", "gitlab.example/group:1", True),
        ("gitlab.example/group", "gitlab.example/groupies/app", False),
        ("https://index.docker.io/v1/", "me/app", True),
        ("docker.io", "index.docker.io/me/app", True),
        ("docker.io", "localhost/me/app", False),
        ("docker.io", "registry-1.docker.io/me/app", True),
        ("docker.io", "MyHost/app", False),
        ("MyHost", "MyHost/app", True),
    ],
)
def test_credentials_go_to_their_own_registry_only(registry: str, reference: str, fits: bool) -> None:
    assert Credentials(registry, "me", "secret").matches(reference) is fits


def test_the_closest_credentials_win() -> None:
    wide, narrow = Credentials("hub.example", "a", "1"), Credentials("hub.example/team", "b", "2")
    assert find_credentials([wide, narrow], "hub.example/team/app") is narrow
    assert find_credentials([narrow, wide], "hub.example/other/app") is wide
    assert find_credentials([narrow], "hub.example/other/app") is None


def test_a_password_is_never_shown() -> None:
    assert "s3cret" not in f"{Credentials('hub.example', 'me', 's3cret')!r}"


def test_a_reference_without_a_registry_is_docker_hubs() -> None:
    assert split_registry("python:3.11-slim") == ("docker.io", "python:3.11-slim")
    assert split_registry("localhost/a/b") == ("localhost", "a/b")
