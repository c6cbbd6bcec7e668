from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging import read_servable, verify_bundle, write_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.packaging.conftest import Parts


@pytest.fixture
def bundle(parts: Parts, tmp_path: Path) -> Path:
    parts.write(tmp_path / "servable")
    write_bundle(tmp_path / "servable", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_same_servable_gives_the_same_bundle_elsewhere(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "servable")
    one, other = (write_bundle(tmp_path / "servable", tmp_path / n) for n in "ab")
    assert one == other
    assert one.digest == "sha256:" + hashlib.sha256((tmp_path / "a/SHA256SUMS").read_bytes()).hexdigest()
    assert one.revision == one.digest[7:19]
    assert one.digest == verify_bundle(tmp_path / "b")
    assert [p for p in one.files if "__pycache__" in p] == []


def test_a_bundle_holds_servable_server_and_what_it_needs(bundle: Path) -> None:
    assert read_servable(bundle / "servable").name == "affine"
    assert (bundle / "server/model_server/__main__.py").is_file()
    assert (bundle / "server/model_server/servable.schema.json").is_file()
    pinned = dict(re.findall(r"^([\w]+)==([^\s;]+)", (bundle / "requirements.txt").read_text(), re.MULTILINE))
    assert pinned["onnxruntime"] == metadata.version("onnxruntime")
    assert set(pinned) == {
        "httptools", "numpy", "onnxruntime", "orjson", "prometheus_client", "uvicorn", "uvloop",
    }  # fmt: skip


def test_sha256sums_is_what_sha256sum_checks(bundle: Path) -> None:
    argv = ["/usr/bin/env", "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    done = subprocess.run(argv, cwd=bundle, check=False)
    assert done.returncode == 0
    paths = [line.split("  ", 1)[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()]
    assert paths == sorted(paths)


def test_writing_a_bundle_does_not_import_the_server(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "servable")
    code = (
        "import sys; from pathlib import Path;"
        "from airflow_model_deploy.engine.packaging import write_bundle;"
        "write_bundle(Path(sys.argv[1]), Path(sys.argv[2]));"
        "print([m for m in sys.modules if 'serving' in m or m in ('onnxruntime', 'uvicorn', 'numpy')])"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "servable"), str(tmp_path / "b")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\n")


HARMS: list[tuple[Callable[[Path], object], str]] = [
    (lambda b: _append(b / "server/model_server/__main__.py"), "changed: server/model_server/__main__.py"),
    (lambda b: (b / "servable/model.onnx").unlink(), "missing: servable/model.onnx"),
    (lambda b: (b / "server/json.py").write_text("1"), "not listed: server/json.py"),
    (lambda b: (b / "more").symlink_to("/etc"), "link"),
    (lambda b: (b / "SHA256SUMS").unlink(), "SHA256SUMS"),
]


@pytest.mark.parametrize(("harm", "words"), HARMS)
def test_a_bundle_that_was_touched_is_refused(
    bundle: Path, harm: Callable[[Path], object], words: str
) -> None:
    harm(bundle)
    with pytest.raises(IntegrityError, match=words):
        verify_bundle(bundle)


@pytest.mark.parametrize(("harm", "words"), HARMS)
def test_start_refuses_a_touched_bundle_with_one_line(
    bundle: Path, harm: Callable[[Path], object], words: str
) -> None:
    harm(bundle)
    done = _start(bundle, "--help")
    assert done.returncode == 3
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_module_dropped_beside_start_is_not_even_imported(bundle: Path) -> None:
    (bundle / "hashlib.py").write_text("print('ran'); raise SystemExit(0)")
    done = _start(bundle, "--help")
    assert (done.returncode, done.stdout) == (3, "")


def test_start_runs_the_server_and_leaves_the_bundle_as_it_was(bundle: Path) -> None:
    done = _start(bundle, "--help")
    assert done.returncode == 0
    assert "--ready-file" in done.stdout
    verify_bundle(bundle)


def test_a_changed_servable_is_not_packaged(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "servable")
    _append(tmp_path / "servable/model.onnx")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        write_bundle(tmp_path / "servable", tmp_path / "b")


def test_a_folder_in_use_is_left_alone(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "servable")
    with pytest.raises(InputError, match="empty"):
        write_bundle(tmp_path / "servable", tmp_path)


def _start(bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(bundle / "start.py"), *options]
    # Without the checkout on the path: a bundle has to run from its own files.
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
