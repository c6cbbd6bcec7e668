"""A disk that fills up under a step: told by name, nothing published, and the same run succeeds once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

import pytest

from tests.hardening.flow import Task, Workspace, assert_nothing_half_published

# 4 MB of weights, which a small disk can't hold.
LARGE = {"factory": {"path": "toy_model:build", "options": {"width": 1000}}, "epochs": 1}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, and what makes it larger."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not unmount:
        pytest.skip("a small disk is mounted by root, with mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")

    def enlarge():
        subprocess.run([mount, "-o", "remount,size=64m", str(folder)], check=True)

    yield folder, enlarge
    subprocess.run([unmount, "--lazy", str(folder)], check=True)


def run_as_task(workspace, request, tmp_path, temporary=None):
    with Task(workspace, request, tmp_path, temporary=temporary) as task:
        result = task.finish()["result"]
        task.assert_gone()
    return result


def assert_tells(result, place):
    assert result["status"] == "failed"
    assert result["artifact"] is None
    error = result["error"]
    assert error["permanent"] is False
    assert str(place) in error["message"]
    assert "No space left on device" in error["message"]
    assert "Free space" in error["message"]
    return error


def test_a_full_store(small_disk, hardening_code, tmp_path):
    folder, enlarge = small_disk
    workspace = Workspace(folder, hardening_code, {})
    request = workspace.request("train", **LARGE)
    error = assert_tells(workspace.run(request).to_json(), workspace.store.url)
    assert error["type"] == "UnavailableError"
    assert "nothing was published" in error["message"]
    assert_nothing_half_published(workspace.store, folder)
    assert not list((folder / "store").rglob("weights*"))

    # So full that not even the result can be written: the reason comes through all the same.
    room = os.statvfs(folder)
    (folder / "ballast").write_bytes(b"x" * room.f_bsize * room.f_bavail)
    assert_tells(run_as_task(workspace, request, tmp_path), workspace.store.url)
    (folder / "ballast").unlink()

    enlarge()
    result = workspace.run(request)
    assert result.status == "succeeded", result.error
    workspace.store.fetch(result.artifact)


def test_a_full_temporary_folder(small_disk, hardening_code, tmp_path, monkeypatch):
    folder, enlarge = small_disk
    workspace = Workspace(tmp_path, hardening_code, {})
    request = workspace.request("train", **LARGE)
    error = assert_tells(run_as_task(workspace, request, tmp_path, temporary=folder), folder)
    assert error["type"] == "UnavailableError"
    assert "TMPDIR" in error["message"]
    assert_nothing_half_published(workspace.store, tmp_path)
    enlarge()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    result = workspace.run(request)
    assert result.status == "succeeded", result.error
