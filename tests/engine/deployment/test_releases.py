from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.deployment import host
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from tests.engine.serving.servables import linear

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_install_is_named_by_the_digest_and_idempotent(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle("v1")
    revision = host.install(bundle, service)
    assert revision == hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest()[:12]
    installed = service.releases / revision
    before = (installed / "start.py").stat().st_ino
    assert (installed / "servable" / "model.onnx").read_bytes() == (
        bundle / "servable" / "model.onnx"
    ).read_bytes()

    assert host.install(bundle, service) == revision
    assert (installed / "start.py").stat().st_ino == before
    assert [p.name for p in service.releases.iterdir()] == [revision]


@pytest.mark.parametrize("damage", ["changed", "gone", "added"])
def test_a_damaged_copy_is_replaced(
    service: host.Service, make_bundle: Callable[..., Path], damage: str
) -> None:
    bundle = make_bundle("v1")
    installed = service.releases / host.install(bundle, service)
    model = installed / "servable" / "model.onnx"
    if damage == "added":
        (installed / "extra.py").write_text("")
    else:
        model.unlink()
    if damage == "changed":
        model.write_bytes(b"x")

    host.install(bundle, service)

    assert model.read_bytes() == (bundle / "servable" / "model.onnx").read_bytes()
    assert not (installed / "extra.py").exists()


def test_a_bundle_that_is_not_what_it_says_is_refused_and_leaves_nothing(
    service: host.Service, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    def refused(wanted: str, bundle: Path, error: type[Exception] = IntegrityError) -> None:
        with pytest.raises(error, match=wanted):
            host.install(bundle, service)
        assert not service.releases.exists() or not list(service.releases.iterdir())

    changed = make_bundle("changed")
    (changed / "servable" / "model.onnx").write_bytes(b"x")
    refused(r"servable/model\.onnx", changed)

    added = make_bundle("added")
    (added / "server" / "model_server" / "more.py").write_text("")
    refused(r"more\.py", added)

    gone = make_bundle("gone")
    (gone / "requirements.txt").unlink()
    refused(r"requirements\.txt.*no file", gone)

    linked = make_bundle("linked")
    (tmp_path / "start.py").write_bytes((linked / "start.py").read_bytes())
    (linked / "start.py").unlink()
    (linked / "start.py").symlink_to(tmp_path / "start.py")
    refused(r"start\.py.*symbolic link", linked)

    escaping = make_bundle("escaping")
    sums = escaping / "SHA256SUMS"
    sums.write_text(sums.read_text() + "0" * 64 + "  ../outside\n")
    refused("outside", escaping, InputError)

    refused("SHA256SUMS", tmp_path, InputError)


def test_prune_keeps_the_newest(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    bundles = [make_bundle(f"v{i}", linear(i + 1)) for i in range(4)]
    revisions = [host.install(bundle, service) for bundle in bundles]
    for age, revision in enumerate(reversed(revisions)):
        os.utime(service.releases / revision, (1e9 - age, 1e9 - age))
    (service.releases / f".tmp-{'0' * 32}-damaged").mkdir()

    assert host.prune(service, keep=3) == revisions[:1]
    assert sorted(p.name for p in service.releases.iterdir()) == sorted(revisions[1:])


def test_an_installed_release_can_be_removed(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    shutil.rmtree(service.releases / host.install(make_bundle("v1"), service))


@pytest.mark.parametrize(
    "wrong", [{"name": "../x"}, {"port": 0}, {"port": 70000}, {"threads": 0}, {"drain_s": 0}]
)
def test_a_service_that_can_not_be_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong)).split("_")[0]):
        host.Service(**{"root": tmp_path, "name": "tiny", "port": 8080, **wrong})
