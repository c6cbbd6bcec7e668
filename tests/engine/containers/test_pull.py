from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.containers import Credentials, ensure_image, find_image
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from tests.engine.containers.support import guarded

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = pytest.mark.docker
_NO_IMAGE = "sha256:" + "0" * 64


@pytest.fixture
def digest(client: APIClient, base: str) -> str:
    return str(client.inspect_distribution(base)["Descriptor"]["digest"])


def test_an_image_that_is_there_is_not_asked_for(client: APIClient, base: str) -> None:
    said: list[str] = []
    ensure_image(client, base, log=said.append)
    said.clear()
    image_id = ensure_image(client, base, log=said.append)
    assert ensure_image(client, image_id, log=said.append) == image_id
    assert said == []


def test_a_missing_image_is_pulled_with_its_registrys_credentials(
    client: APIClient, registry: str, digest: str
) -> None:
    said: list[str] = []
    with guarded(registry, "me", "s3cret") as address:
        reference = f"{address}/python@{digest}"
        with pytest.raises(InputError, match=f"Give credentials for {address}"):
            ensure_image(client, reference, log=said.append)
        with pytest.raises(InputError, match=f"Give credentials for {address}"):
            ensure_image(client, reference, [Credentials(address, "me", "wr0ng")], log=said.append)
        image_id = ensure_image(client, reference, [Credentials(address, "me", "s3cret")], log=said.append)
    found = find_image(client, reference)
    client.remove_image(reference)
    assert found is not None
    assert found["Id"] == image_id
    assert any("Pulling from" in line or "Digest:" in line for line in said)
    assert not [line for line in said if "s3cret" in line]


@pytest.mark.parametrize(
    ("reference", "kind", "words"),
    [
        ("{registry}/tests/no-such:1", InputError, "Correct the name, the tag or the digest"),
        ("{registry}/python@" + _NO_IMAGE, InputError, "Correct the name"),
        ("127.0.0.1:1/models/digits:1", UnavailableError, "Look whether 127.0.0.1:1 answers"),
        (_NO_IMAGE, InputError, "not on this engine"),
    ],
)
def test_why_an_image_can_not_be_had_is_said(
    client: APIClient, registry: str, reference: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        ensure_image(client, reference.format(registry=registry), log=print)
