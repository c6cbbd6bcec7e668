from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.packaging.images import package_cache
from airflow_model_deploy.engine.packaging.images.contents.packages import gather
from airflow_model_deploy.engine.packaging.images.contents.target import target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.images.contents.target import Target

HERE = target(architecture="amd64")


@pytest.fixture
def calls() -> list[Path]:
    return []


@pytest.fixture
def install(calls: list[Path]) -> Callable[[Sequence[str], Target, Path], None]:
    def put(pins: Sequence[str], target: Target, folder: Path) -> None:
        calls.append(folder)
        (folder / "alpha").mkdir(parents=True)
        (folder / "alpha" / "__init__.py").write_text("ONE = 1\n")

    return put


@pytest.mark.parametrize("damage", ["content", "extra", "missing", "mode", "link", "note"])
def test_packages_that_were_damaged_are_gathered_anew(
    calls: list[Path], install: Callable[..., None], tmp_path: Path, damage: str
) -> None:
    folder = gather(["alpha==1.0"], HERE, tmp_path, prefix="/opt/x", install=install).folder
    assert gather(["alpha==1.0"], HERE, tmp_path, prefix="/opt/x", install=install).folder == folder
    assert len(calls) == 1
    one = folder / "alpha" / "__init__.py"
    {
        "content": lambda: one.write_text("ONE = 2\n"),
        "extra": lambda: (folder / "evil.py").write_text(""),
        "missing": one.unlink,
        "mode": lambda: one.chmod(0o755),
        "link": lambda: (folder / "link").symlink_to("/etc/passwd"),
        "note": lambda: (tmp_path / f"{folder.name}.sha256").unlink(),
    }[damage]()
    assert gather(["alpha==1.0"], HERE, tmp_path, prefix="/opt/x", install=install).folder == folder
    assert len(calls) == 2
    assert one.read_text() == "ONE = 1\n"
    assert not one.stat().st_mode & 0o111
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name, f"{folder.name}.sha256"]


def test_what_killed_processes_left_goes_after_a_day(install: Callable[..., None], tmp_path: Path) -> None:
    old, young = tmp_path / ".partial-old", tmp_path / ".partial-young"
    for left in (old, young):
        (left / "alpha").mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    gather(["alpha==1.0"], HERE, tmp_path, prefix="/opt/x", install=install)
    assert (old.exists(), young.exists()) == (False, True)


def test_the_cache_is_below_the_users_and_else_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    found = package_cache()
    assert found == tmp_path / "cache" / "airflow-model-deploy" / "packages"
    assert found.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    shared = package_cache()
    assert shared.parent.parent == tmp_path / "tmp"
    assert package_cache() == shared
    # Somebody else was there first: nothing of theirs may get into an image.
    shared.parent.chmod(0o777)
    other = package_cache()
    assert other not in (shared, found)
    assert other.parent == tmp_path / "tmp"
