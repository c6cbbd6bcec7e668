"""The docs hold: examples are what their files say and run, links lead somewhere, every argument is described."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import airflow_model_deploy
from airflow_model_deploy.engine.steps import StepResult
from airflow_model_deploy.provider_info import get_provider_info
from tests.docs.examples import (
    EXAMPLES,
    PAGES,
    REPOSITORY,
    blocks,
    commands,
    source_of,
    updated,
    used_parts,
    without_blocks,
)

OPERATORS = sorted(name for name in airflow_model_deploy.__all__ if name.endswith("Operator"))
SETTINGS = sorted(
    name
    for name in airflow_model_deploy.__all__
    if name.endswith("Config") or name in ("Budget", "DataSource", "ModelCode")
)
DAGS = {
    "digits_weekly": {
        f"model_deploy.{task}"
        for task in (
            "train_model",
            "compress_model",
            "quantize_model",
            "optimize_model",
            "build_model",
            "test_model",
            "prepare_deployment",
            "package_image",
            "deploy_model",
            "monitor_model",
        )
    },
    "operators_one_by_one": {
        "train",
        "prune",
        "quantize",
        "optimize",
        "build",
        "evaluate",
        "prepare",
        "package",
        "rollout",
        "monitor",
    },
    "take_in_a_model": {"ingest_weights", "ingest_onnx"},
    "roll_back": {"roll_back"},
    "embedder": {"ingest", "quantize", "build", "evaluate"},
    "compress_only": {"newest_weights", "ingest", "prune", "quantize", "publish"},
    "after_a_release": {"tell"},
    "smaller_digits": {"train", "distill", "quantize", "prune"},
    "compress_within_a_budget": {"train", "compress", "optimize"},
    "compress_by_an_edited_plan": {"train", "compress"},
    "compress_an_embedder": {"ingest", "compress"},
    "compress_as_the_form_says": {"train", "compress"},
    "digits_back_on_the_engine": {"roll_back"},
    "digits_back_in_the_cluster": {"roll_back"},
    "after_the_service": {"digits_serves"},
    "prune_an_encoder": {"ingest", "by_gradient", "two_of_four", "neurons"},
}
for _name in (
    "quadrants",
    "quadrants_trained_elsewhere",
    "bought_model",
    "digits_to_an_engine",
    "digits_to_a_cluster",
    "digits_in_containers",
    "digits_in_pods",
):
    DAGS[_name] = DAGS["digits_weekly"]
DAGS["digits_elsewhere"] = DAGS["digits_weekly"] | {"approve"}
DAGS["deploy_or_roll_back"] = DAGS["digits_weekly"] | {"watch", "is_failing", "back"}

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())


def _page(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@each_page
def test_every_python_block_is_what_its_file_says(path):
    text = path.read_text(encoding="utf-8")
    assert text == updated(text), "run .venv/bin/python tests/docs/examples.py"
    typed = [block for block in blocks(text, "python") if block not in _sources(text)]
    assert not typed, "Python in the docs comes from a tested file"


def test_no_example_is_left_unused():
    used = set().union(*(used_parts(path.read_text(encoding="utf-8")) for path in PAGES))
    there = {
        (path.relative_to(REPOSITORY).as_posix(), name)
        for path in EXAMPLES.glob("*.py")
        for name in re.findall(r"# \[START (\w+)\]", path.read_text(encoding="utf-8"))
    }
    assert there <= used


def test_every_example_dag_is_one_that_airflow_imports():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(EXAMPLES))
    assert bag.import_errors == {}
    assert {name: set(dag.task_ids) for name, dag in bag.dags.items()} == DAGS
    upstream = bag.dags["digits_elsewhere"].get_task("model_deploy.deploy_model").upstream_task_ids
    assert "approve" in upstream


@each_page
def test_links_and_named_files_exist(path):
    prose = without_blocks(path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        name, _, anchor = target.partition("#")
        assert "://" not in name, f"{target}: the docs need no network"
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found), target
    for name in re.findall(
        r"`((?:airflow_model_deploy|dags|docs|plugins|tests|tools|benchmarks)/[\w./-]*)`", prose
    ):
        assert (REPOSITORY / name).exists(), name


def test_both_readmes_are_in_step():
    english, chinese = _page("README.md"), _page("README.zh-CN.md")
    assert blocks(english) == blocks(chinese)
    levels = [re.findall(r"^(#+) ", without_blocks(text), re.M) for text in (english, chinese)]
    assert levels[0] == levels[1]
    assert len(re.findall(r"^\|", english, re.M)) == len(re.findall(r"^\|", chinese, re.M))
    targets = [re.findall(r"\]\(([^)]+)\)", text)[1:] for text in (english, chinese)]
    assert targets[0] == targets[1]
    assert "README.zh-CN.md" in english
    assert "README.md" in chinese


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_has_a_page_that_names_each_argument(name):
    operator = getattr(airflow_model_deploy, name)
    page = _page(f"docs/operators/{name.removesuffix('Operator')}.md")
    assert page.startswith(f"# {name}\n")
    table = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    wanted = {
        parameter.name
        for parameter in inspect.signature(operator.__init__).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    } | {"store", "python"}
    assert wanted <= table
    for heading in ("Example", "Arguments", "What it returns", "What a failure looks like"):
        assert f"\n## {heading}\n" in page
    assert f"operators/{name.removesuffix('Operator')}.md" in _page("docs/index.md")


@pytest.mark.parametrize("name", OPERATORS)
def test_the_results_shown_have_the_form_of_a_result(name):
    shown = [
        json.loads(text)
        for text in blocks(_page(f"docs/operators/{name.removesuffix('Operator')}.md"), "json")
    ]
    assert shown
    form = StepResult(step="", status="succeeded").to_json()
    for result in shown:
        assert set(result) <= set(form)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_field_of_the_settings_is_described(name):
    prose = _page("docs/use-in-your-own-dag.md") + _page("docs/bring-your-own-model.md")
    assert f"`{name}`" in prose
    for field in fields(getattr(airflow_model_deploy, name)):
        assert f"`{field.name}`" in prose


def test_the_pipelines_arguments_and_airflows_options_are_described():
    page = _page("docs/use-in-your-own-dag.md")
    described = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert set(inspect.signature(airflow_model_deploy.model_deploy_pipeline).parameters) <= described
    assert set(get_provider_info()["config"]["model_deploy"]["options"]) <= described


@each_page
def test_json_is_json_and_commands_are_commands(path):
    from airflow_model_deploy.engine.cli import _parser

    text = path.read_text(encoding="utf-8")
    for block in blocks(text, "json"):
        json.loads(block)
    for block in blocks(text, "bash"):
        for line in block.splitlines():
            if line.startswith("model-deploy "):
                _parser().parse_args(shlex.split(line.partition(" > ")[0])[1:])
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_what_the_pages_run_does_run(tmp_path):
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    output = ""
    for block in commands(_page("docs/command-line.md")):
        done = subprocess.run(
            [str(shutil.which("bash")), "-euc", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        output += done.stdout
    assert '"rollback"' in output
    trained, pruned = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("trained", "pruned"))
    assert trained["metrics"]["quality"] > 0.9
    assert pruned["metrics"]["zero_fraction"] == pytest.approx(0.5, abs=0.01)
    assert pruned["parent"] == trained["artifact"]["digest"]
    assert f'"digest": "{trained["artifact"]["digest"]}"' in output  # the chain that verify walked
    assert output.rstrip().endswith("{}")  # a service that was never deployed


def _sources(page: str) -> set[str]:
    return {source_of(file, name) for file, name in used_parts(page)}


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", without_blocks(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
