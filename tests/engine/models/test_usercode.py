"""User code is found without importing it, travels whole, and fails with its import path in the error."""

from __future__ import annotations

import sys

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import UserFunction, collect_functions, locate, resolve
from airflow_model_deploy.engine.models.data import DataSource, fingerprint, load


@pytest.fixture
def code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("mine", "helpers_of_mine", "pack_of_mine"):
        for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[module]


def test_a_module_travels_with_what_it_imports_but_nothing_runs(code):
    (code / "mine.py").write_text("import helpers_of_mine\nimport numpy, os\nraise SystemExit('imported')\n")
    (code / "helpers_of_mine.py").write_text("from pack_of_mine.deep import thing\n")
    (code / "pack_of_mine" / "deep").mkdir(parents=True)
    (code / "pack_of_mine" / "__init__.py").write_text("")
    (code / "pack_of_mine" / "deep" / "__init__.py").write_text("thing = 1\n")
    (code / "pack_of_mine" / "__pycache__").mkdir()
    (code / "pack_of_mine" / "__pycache__" / "x.pyc").write_bytes(b"")
    found = locate([UserFunction("mine:f")])
    assert list(found.files) == [
        "helpers_of_mine.py",
        "mine.py",
        "pack_of_mine/__init__.py",
        "pack_of_mine/deep/__init__.py",
    ]
    assert found.installed == ("numpy",)


def test_a_module_that_is_not_there_is_named(code):
    with pytest.raises(InputError, match="no 'nowhere_of_mine' on the Python path"):
        locate([UserFunction("nowhere_of_mine.deep:f")])


def test_optional_imports_that_are_missing_do_not_matter(code):
    (code / "mine.py").write_text("try:\n    import not_installed_at_all\nexcept ImportError:\n    pass\n")
    assert list(locate([UserFunction("mine:f")]).files) == ["mine.py"]


@pytest.mark.parametrize("path", ["mine", "mine:", ":f", "mine:f()", "mi ne:f", "mine:f.g", "os;rm:f"])
def test_a_malformed_import_path_is_refused(path):
    with pytest.raises(InputError, match="malformed"):
        UserFunction(path)


def test_resolve_says_which_part_is_wrong(code):
    (code / "mine.py").write_text("import not_installed_at_all\n")
    (code / "helpers_of_mine.py").write_text("x = 1\n")
    with pytest.raises(InputError, match=r"can't be imported.*not_installed_at_all"):
        resolve("mine:f")
    with pytest.raises(InputError, match="nothing that can be called"):
        resolve("helpers_of_mine:x")
    with pytest.raises(InputError, match="nothing that can be called"):
        resolve("helpers_of_mine:y")


def test_functions_are_found_wherever_they_stand_in_a_spec():
    source = DataSource(loader=UserFunction("a:b"), fingerprint=UserFunction("c:d"))
    assert [f.path for f in collect_functions((source, [UserFunction("e:f")], "g:h", 3))] == [
        "a:b",
        "c:d",
        "e:f",
    ]


def _loader(value):
    return lambda path: lambda split, **options: value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], r"\(inputs, targets\)"),
        (({}, None), "non-empty dict"),
        (({"x": [1, 2]}, [1]), "same number"),
        (({"x": [1], "y": [1, 2]}, None), "same number"),
        (({"x": []}, None), "at least 1"),
    ],
)
def test_a_loader_that_gives_something_else_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        load(DataSource(loader=UserFunction("a:b")), "train", _loader(value))


def test_spread_samples_see_sorted_data_whole():
    data = load(DataSource(loader=UserFunction("a:b")), "train", _loader(({"x": list(range(100))}, None)))
    assert data.spread(5).inputs["x"].tolist() == [0, 25, 50, 74, 99]
    assert len(data.spread(1000)) == 100


def test_a_fingerprint_changes_with_files_version_and_function(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text("1")
    loader = UserFunction("a:b")
    by_file = DataSource(loader=loader, files=(str(file),))
    first = fingerprint(by_file, resolve)
    file.write_text("2")
    assert fingerprint(by_file, resolve) != first
    assert fingerprint(DataSource(loader=loader, version="1"), resolve) != fingerprint(
        DataSource(loader=loader, version="2"), resolve
    )
    assert fingerprint(DataSource(loader=loader), resolve) is None
    with pytest.raises(InputError, match="no fingerprint"):
        fingerprint(DataSource(loader=loader, fingerprint=UserFunction("a:b")), lambda path: lambda **_: 3)
