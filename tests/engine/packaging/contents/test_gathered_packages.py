from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.artifacts import list_files
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.packaging.images.contents.packages import gather
from airflow_model_deploy.engine.packaging.images.contents.target import Target, target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.packaging.contents.conftest import Wheels

HERE = target(architecture="amd64")
PREFIX = "/opt/somewhere"
# Sets, shared strings and nested code: what makes bytecode differ between processes.
SOURCE = """
WORDS = {'a', 'b', 'c', 'prefix', 'scratch'}
def f(x, prefix='prefix'):
    return x in {'one', 'two', 'three', 'four', 'five', 'six'} and (lambda y: y in {1, 2, 'scratch'})(x)
"""


def _fill(wheels: Wheels) -> None:
    wheels.add("alpha", alpha__code_dot_py=SOURCE, alpha__tests__test_it_dot_py="1", alpha__more_dot_pyi="1")
    wheels.add("beta", "2.5", tag=f"cp{HERE.python.replace('.', '')}-abi3-manylinux_2_17_x86_64")


def _gather(scratch: Path, *, prefix: str = PREFIX, of: Target = HERE) -> Path:
    return gather(["beta==2.5", "alpha==1.0"], of, scratch, prefix=prefix).folder


def test_two_gatherings_in_two_places_are_alike(wheels: Wheels, tmp_path: Path) -> None:
    _fill(wheels)
    one, other = _gather(tmp_path / "a"), _gather(tmp_path / "somewhere" / "else")
    assert list_files(one) == list_files(other)
    text = b"".join(path.read_bytes() for path in one.rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in text


def test_what_only_pip_and_developers_need_is_left_out(wheels: Wheels, tmp_path: Path) -> None:
    _fill(wheels)
    found = {entry.path for entry in list_files(_gather(tmp_path / "s")) if "__pycache__" not in entry.path}
    about = {
        f"{name}.dist-info/{file}"
        for name in ("alpha-1.0", "beta-2.5")
        for file in ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE.c")
    }
    assert found == {"alpha/__init__.py", "alpha/code.py", "beta/__init__.py", *about}


def test_bytecode_is_never_checked_and_names_the_path_in_the_image(wheels: Wheels, tmp_path: Path) -> None:
    _fill(wheels)
    folder = _gather(tmp_path / "s")
    cached = (folder / f"alpha/__pycache__/code.{sys.implementation.cache_tag}.pyc").read_bytes()
    assert int.from_bytes(cached[4:8], "little") == 0b01  # PEP 552: by hash, unchecked
    assert b"/opt/somewhere/alpha/code.py" in cached


def test_another_python_gets_its_wheels_and_no_bytecode(wheels: Wheels, tmp_path: Path) -> None:
    _fill(wheels)
    wheels.add("beta", "2.5", tag="cp312-cp312-manylinux2014_aarch64", beta__which_dot_py="1")
    folder = _gather(tmp_path / "s", of=Target("3.12", "arm64"))
    assert (folder / "beta/which.py").is_file()
    assert list(folder.rglob("*.pyc")) == []


def test_a_second_call_needs_no_index(wheels: Wheels, tmp_path: Path) -> None:
    _fill(wheels)
    first = _gather(tmp_path / "s")
    for wheel in wheels.folder.iterdir():
        wheel.unlink()
    assert _gather(tmp_path / "s") == first
    with pytest.raises(InputError):
        _gather(tmp_path / "s", prefix="/opt/other")


def test_a_missing_wheel_is_named_and_nothing_half_done_stays(
    wheels: Wheels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.add("alpha")
    wheels.add("beta", "2.5", tag="cp39-cp39-win_amd64")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://me:tr0ub4dor@127.0.0.1:9/simple")
    with pytest.raises(InputError, match=re.escape("beta==2.5")) as caught:
        _gather(tmp_path / "s")
    assert "tr0ub4dor" not in str(caught.value)
    assert "pip config list" in str(caught.value)
    assert list((tmp_path / "s").iterdir()) == []


def test_an_index_that_does_not_answer_may_later(
    wheels: Wheels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:tr0ub4dor@127.0.0.1:9/simple")
    with pytest.raises(UnavailableError) as caught:
        _gather(tmp_path / "s")
    assert "tr0ub4dor" not in str(caught.value)


def test_an_interpreter_without_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ensurepip"):
        _gather(tmp_path / "s")


@pytest.mark.parametrize(
    ("python", "architecture"), [("3", "amd64"), ("3.11.2", "amd64"), ("3.11", "x86_64")]
)
def test_targets_that_no_image_has(python: str, architecture: str) -> None:
    with pytest.raises(InputError):
        Target(python, architecture)
