"""Whoever is killed, whenever: nothing of the step runs on, nothing is half published, a retry gives the same."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hardening.flow import STAGES, Task, assert_nothing_half_published, until

SEED = int(os.environ.get("HARDENING_SEED", str(random.SystemRandom().randrange(10**6))))
# A step's own process takes about so long; later moments find it finished.
LONGEST_S = 3.0


def retried(workspace, request, stage, undisturbed):
    """Run it again, to the same end as if nothing had happened."""
    assert_nothing_half_published(workspace.store, workspace.folder)
    result = workspace.run(request)
    assert result.status == "succeeded", result.error
    assert result.artifact.digest == undisturbed.made[stage].digest
    workspace.store.fetch(result.artifact)


def killed(workspace, request, folder, moment):
    with Task(workspace, request, folder, pause=moment if isinstance(moment, str) else "") as task:
        if moment == "serving":
            task.serving()
        elif isinstance(moment, str):
            task.paused()
        else:
            time.sleep(moment)
        task.kill()
        task.assert_gone()


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_task_leaves_nothing_and_a_retry_gives_the_same(stage, undisturbed, tmp_path):
    """One is killed at any moment, another half-way through a file of what it publishes."""
    moment = random.Random(f"{SEED} {stage}").uniform(0, LONGEST_S)
    print(f"HARDENING_SEED={SEED}: killed after {moment:.2f} s")
    one, other = (undisturbed.without(stage, tmp_path / name) for name in ("one", "other"))
    with ThreadPoolExecutor() as at_once:
        kills = [
            at_once.submit(killed, workspace, workspace.request(stage), workspace.folder, when)
            for workspace, when in ((one, moment), (other, "publication"))
        ]
        for kill in kills:
            kill.result()
    retried(one, one.request(stage), stage, undisturbed)

    artifact = other.store.reference(undisturbed.made[stage].digest)
    assert not other.store.has(artifact)
    (unfinished,) = (other.folder / "store" / "artifacts").rglob(".*.tmp")
    os.utime(unfinished, (time.time() - 7200,) * 2)
    retried(other, other.request(stage), stage, undisturbed)
    assert not unfinished.exists()


@pytest.mark.parametrize(("stage", "moment"), [("compress", "native"), ("test", "serving")])
def test_a_kill_in_the_middle_of_the_work_ends_it_and_all_it_started(stage, moment, undisturbed, tmp_path):
    workspace = undisturbed.without(stage, tmp_path)
    request = workspace.request(stage)
    killed(workspace, request, tmp_path, moment)
    retried(workspace, request, stage, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kills_at_many_random_moments(stage, undisturbed, tmp_path):
    moments = random.Random(f"{SEED} many {stage}")
    workspace = undisturbed.without(stage, tmp_path)
    request = workspace.request(stage)
    for _ in range(8):
        moment = moments.uniform(0, LONGEST_S)
        print(f"HARDENING_SEED={SEED}: killed after {moment:.2f} s")
        killed(workspace, request, tmp_path, moment)
        assert_nothing_half_published(workspace.store, workspace.folder)
    retried(workspace, request, stage, undisturbed)


@pytest.mark.parametrize(
    ("stage", "moment"), [("train", "native"), ("package", "serving"), ("prepare", "publication")]
)
def test_a_cancel_in_a_signal_handler_ends_the_step_while_the_task_waits(
    stage, moment, undisturbed, tmp_path
):
    workspace = undisturbed.without(stage, tmp_path)
    request = workspace.request(stage)
    with Task(workspace, request, tmp_path, pause=moment) as task:
        task.serving() if moment == "serving" else task.paused()
        task.process.send_signal(signal.SIGTERM)
        report = task.finish(timeout=10)
        task.assert_gone()
    assert report["cancel_s"] < 4.5  # Airflow kills a task five seconds after it asked it to end
    assert report["result"]["status"] == "failed"
    assert report["result"]["error"]["permanent"] is False
    assert "cancelled" in report["result"]["error"]["message"]
    retried(workspace, request, stage, undisturbed)


def test_a_killed_step_is_a_result_that_may_be_retried_and_says_what_happened(undisturbed, tmp_path):
    """As the kernel does for want of memory: its data loader's workers are left without a parent."""
    workspace = undisturbed.without("train", tmp_path)
    request = workspace.request("train")
    with Task(workspace, request, tmp_path, pause="workers") as task:
        task.paused()
        os.kill(task.step_pid(), signal.SIGKILL)
        error = task.finish(timeout=10)["result"]["error"]
        task.assert_gone()
    assert error["permanent"] is False
    assert "SIGKILL" in error["message"]
    assert "memory" in error["message"]
    retried(workspace, request, "train", undisturbed)


def test_two_runs_at_once_on_the_same_inputs_agree(undisturbed, tmp_path):
    workspace = undisturbed.without("compress", tmp_path)
    request = workspace.request("compress")
    other = workspace.request("compress")
    with Task(workspace, request, tmp_path) as one, Task(workspace, other, tmp_path) as two:
        results = [task.finish()["result"] for task in (one, two)]
    assert [result["status"] for result in results] == ["succeeded"] * 2, results
    assert {result["artifact"]["digest"] for result in results} == {undisturbed.made["compress"].digest}
    assert_nothing_half_published(workspace.store, workspace.folder)
    retried(workspace, request, "compress", undisturbed)


def test_the_operators_kill_ends_the_step_and_its_processes(undisturbed, tmp_path, monkeypatch):
    import threading
    from types import SimpleNamespace

    from airflow_model_deploy.config import DataSource, ModelCode, UserFunction
    from airflow_model_deploy.operators.train import TrainModelOperator
    from tests.hardening.flow import HERE, importable

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE / "slowed", undisturbed.code))))
    monkeypatch.setenv("HARDENING_PAUSE", "workers")
    monkeypatch.setenv("HARDENING_MARKER", str(tmp_path / "marker"))
    monkeypatch.setenv("HARDENING_MARK", "operator")
    operator = TrainModelOperator(
        task_id="train_model",
        code=ModelCode(
            factory=UserFunction("toy_model:build"),
            fit=UserFunction("toy_pausing:fit"),
            data=DataSource(UserFunction("toy_data:load"), version="1"),
        ),
        name="toy",
        epochs=60,
        store=f"file://{tmp_path}/store",
    )
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="train_model", map_index=-1, try_number=1)
    raised = []

    def execute():
        try:
            operator.execute({"ti": ti, "outlet_events": {}})
        except Exception as error:
            raised.append(error)

    with importable(undisturbed.code):
        thread = threading.Thread(target=execute)
        thread.start()
        until((tmp_path / "marker").is_file, 60)
        task = object.__new__(Task)
        task.mark = "operator"
        running = [p for p in task.processes() if p.pid != os.getpid()]
        assert len(running) >= 2
        operator.on_kill()
        thread.join(10)
    assert not thread.is_alive()
    until(lambda: not [p for p in task.processes() if p.pid != os.getpid()], 5)
    assert "cancelled" in str(raised[0])


def test_a_stored_model_that_was_damaged_is_found_out_and_made_anew(undisturbed, tmp_path):
    """Same size, other content, as a disk or a hand does it: the step's earlier result no longer counts."""
    workspace = undisturbed.without("compress", tmp_path)
    trained = workspace.store.reference(undisturbed.made["train"].digest)
    folder, _ = workspace.store.fetch(trained)
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    result = workspace.run(workspace.request("compress"))
    assert result.error["integrity"] is True
    assert "Run the step that made it again" in result.error["message"]
    again = workspace.run(workspace.request("train"))
    assert (again.cached, again.artifact) == (False, trained)
    retried(workspace, workspace.request("compress"), "compress", undisturbed)
