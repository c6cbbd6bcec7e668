"""What Airflow discovers, and what importing costs: the promises of the package as a whole."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from importlib.resources import files

import jsonschema
import pytest

import airflow_model_deploy
from airflow_model_deploy.provider_info import get_provider_info
from tests.conftest import REPOSITORY

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "docker", "safetensors", "sklearn", "httpx.unused")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_the_provider_info_is_what_airflow_accepts():
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    info = get_provider_info()
    jsonschema.validate(info, schema)
    assert info["package-name"] == PYPROJECT["project"]["name"] == "airflow-model-deploy"


def test_the_entry_point_is_installed_and_leads_to_it():
    found = [
        entry for entry in entry_points(group="apache_airflow_provider") if "model_deploy" in entry.value
    ]
    assert [entry.load() for entry in found] == [get_provider_info]


def test_everything_that_is_announced_can_be_imported():
    info = get_provider_info()
    modules = [name for group in info["operators"] for name in group["python-modules"]]
    assert modules
    for name in modules:
        importlib.import_module(name)
    for path in info["extra-links"]:
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name)
    waiting = [group["python-modules"] for kind in ("sensors", "triggers") for group in info[kind]]
    for name in [name for names in waiting for name in names]:
        importlib.import_module(name)
    on_disk = {path.stem for path in (REPOSITORY / "airflow_model_deploy" / "operators").glob("*.py")}
    assert {name.rpartition(".")[2] for name in modules} == on_disk - {
        "__init__",
        "base",
        "attempts",
        "clusters",
        "driver_end",
        "driver_pod",
        "driver_spec",
        "engines",
        "execution",
        "placement",
        "stores",
        "verdict",
    }


def test_every_public_name_loads_and_an_unknown_one_is_refused():
    for name in airflow_model_deploy.__all__:
        assert getattr(airflow_model_deploy, name).__name__ == name or name == "UserFunction"
    with pytest.raises(AttributeError, match="NoSuchOperator"):
        _ = airflow_model_deploy.NoSuchOperator


@pytest.mark.parametrize(
    "code",
    [
        "import airflow_model_deploy.provider_info",
        "import airflow_model_deploy.engine.cli",
        "import runpy; runpy.run_path('dags/model_deploy.py')",
        "from airflow_model_deploy.engine.steps import STEP_NAMES, get_step; [get_step(n) for n in STEP_NAMES]",
    ],
    ids=["provider", "command line", "reference Dag", "all steps"],
)
def test_nothing_heavy_is_imported(code, tmp_path):
    check = f"import sys; heavy = [n for n in {HEAVY!r} if n in sys.modules]; sys.exit(str(heavy) if heavy else 0)"
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_engine_works_where_airflow_cannot_be_imported(tmp_path):
    (tmp_path / "airflow.py").write_text("raise ImportError('no Airflow here')")
    done = subprocess.run(
        [sys.executable, "-m", "airflow_model_deploy.engine.cli", "steps", "prune"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    schema = json.loads(done.stdout)["prune"]["spec"]
    assert schema["properties"]["ratio"]["exclusiveMaximum"] == 1


def test_airflow_lists_the_provider_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "providers", "list", "--output", "json"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__UNIT_TEST_MODE": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["package_name"]: row for row in json.loads(done.stdout[done.stdout.index("[{") :])}
    assert rows["airflow-model-deploy"]["version"] == airflow_model_deploy.__version__
    words = (done.stdout + done.stderr).lower()
    assert not [line for line in words.splitlines() if "warn" in line and "model" in line]


def test_the_pins_name_no_place_and_cover_what_is_declared():
    lines = [
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if "://" in line or "@" in line or "==" not in line]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = PYPROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {r.split(";")[0].split("[")[0].split(">")[0].strip().lower().replace("_", "-") for r in wanted}
    assert names - {"airflow-model-deploy"} <= pinned


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("build", {"safetensors", "torch", "onnxruntime"}),
        ("deploy", {"uvicorn", "onnxruntime", "httpx"}),
        ("prune", {"torch-pruning"}),
    ],
)
def test_what_a_step_needs_is_told_for_pip(step, wanted):
    from airflow_model_deploy.engine.steps import requirements

    lines = requirements(step)
    assert wanted <= {line.split(">")[0] for line in lines}
    assert not [line for line in lines if "airflow" in line or "extra" in line]


@pytest.mark.slow
def test_the_engine_installs_and_runs_without_airflow(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    from airflow_model_deploy.engine.steps import requirements

    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*pip, *constraints, *requirements("deploy"), *requirements("package")], check=True)
    subprocess.run([*pip, "--no-deps", REPOSITORY], check=True)
    done = subprocess.run(
        [python, "-P", "-m", "airflow_model_deploy.engine.cli", "steps", "deploy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert subprocess.run([python, "-c", "import airflow"], check=False, capture_output=True).returncode == 1
