"""The store on a real S3 server: what a reader sees, what a killed writer leaves, what refusals say."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from airflow_model_deploy.engine.artifacts import Checkpoint, Description, Store
from airflow_model_deploy.engine.cli import main
from airflow_model_deploy.engine.errors import InputError, IntegrityError, ModelDeployError, UnavailableError
from tests.s3 import KEY, SECRET, serving

pytestmark = pytest.mark.timeout(180)
ABOUT = Description(name="toy", kind="model", format="onnx")


@pytest.fixture(scope="module")
def s3():
    with serving() as server:
        yield server


@pytest.fixture
def url(s3, request):
    return f"{s3.url}/{request.node.name}"


@pytest.fixture
def store(s3, url):
    return Store(url, s3.options)


@pytest.fixture
def behind(s3):
    """The bucket as another process sees it."""
    return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **s3.options)


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "artifact"
    (found / "parts").mkdir(parents=True)
    (found / "model.onnx").write_bytes(bytes(range(256)) * 4096)
    for number in range(6):
        (found / "parts" / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    return found


def path_of(store, reference, name):
    return f"{store.reference(reference.digest).uri.removeprefix('s3://')}/{name}"


def test_what_was_published_comes_back_verified_in_another_process(store, url, s3, folder, tmp_path):
    reference, manifest = store.publish(folder, ABOUT)
    assert reference.uri.startswith(url)
    assert store.has(reference)
    found, again = Store(url, s3.options).fetch(reference, tmp_path / "cache")
    assert again == manifest
    assert {f.relative_to(found).as_posix(): f.read_bytes() for f in found.rglob("*") if f.is_file()} == {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()
    }


def test_a_file_of_many_parts_arrives_whole(store, tmp_path):
    source = tmp_path / "large"
    source.mkdir()
    (source / "weights.bin").write_bytes(b"0123456789abcdef" * (40 << 16))  # 40 MiB, in parts of 16
    reference, _ = store.publish(source, ABOUT)
    found, _ = store.fetch(reference, tmp_path / "cache")
    assert (found / "weights.bin").stat().st_size == 40 << 20


def test_the_manifest_comes_last_so_that_a_killed_writer_leaves_no_artifact(
    store, folder, monkeypatch, behind
):
    written = []
    put, pipe = store._fs.put_file, store._fs.pipe_file

    def recorded(source, target, **options):
        written.append(target)
        if len(written) == 4:
            raise KeyboardInterrupt
        put(source, target, **options)

    monkeypatch.setattr(store._fs, "put_file", recorded)
    with pytest.raises(KeyboardInterrupt):
        store.publish(folder, ABOUT)
    assert not [name for name in behind.find(store._root) if name.endswith("manifest.json")]
    monkeypatch.setattr(store._fs, "put_file", put)
    monkeypatch.setattr(store._fs, "pipe_file", lambda *a, **k: (written.append(a[0]), pipe(*a, **k)))
    reference, _ = store.publish(folder, ABOUT)
    assert written[-1] == path_of(store, reference, "manifest.json")
    assert store.has(reference)


def test_what_others_write_and_remove_is_seen_at_once(store, url, s3, folder, behind):
    assert store.read_json("runs/1.json") is None
    Store(url, s3.options).write_json("runs/1.json", {"status": "succeeded"})
    assert store.read_json("runs/1.json") == {"status": "succeeded"}
    reference, _ = store.publish(folder, ABOUT)
    assert store.has(reference)
    behind.rm_file(path_of(store, reference, "files/parts/3.bin"))
    assert not store.has(reference)
    again, _ = store.publish(folder, ABOUT)  # completes what is missing
    assert (again, store.has(again)) == (reference, True)


def test_many_writers_of_the_same_leave_one_whole_artifact(url, s3, folder, tmp_path):
    barrier = threading.Barrier(4)

    def publish(_):
        barrier.wait()
        return Store(url, s3.options).publish(folder, ABOUT)[0]

    with ThreadPoolExecutor(4) as pool:
        (reference,) = set(pool.map(publish, range(4)))
    Store(url, s3.options).fetch(reference, tmp_path / "cache")


def test_a_changed_or_missing_file_is_named(store, folder, tmp_path, behind):
    reference, _ = store.publish(folder, ABOUT)
    behind.pipe_file(path_of(store, reference, "files/parts/2.bin"), b"x" * 1000)
    with pytest.raises(IntegrityError, match=r"parts/2\.bin has another sha256"):
        store.fetch(reference, tmp_path / "a")
    behind.rm_file(path_of(store, reference, "files/parts/2.bin"))
    with pytest.raises(IntegrityError, match=r"parts/2\.bin is missing"):
        store.fetch(reference, tmp_path / "b")


def test_a_checkpoint_is_kept_found_and_forgotten(store, tmp_path):
    import torch

    kept = Checkpoint(store, "train/abc", scratch=tmp_path)
    kept.save({"epoch": 3, "weights": torch.ones(4)}, now=True)
    found = Checkpoint(store, "train/abc", scratch=tmp_path).load()
    assert (found["epoch"], found["weights"].tolist()) == (3, [1.0] * 4)
    kept.remove()
    assert Checkpoint(store, "train/abc", scratch=tmp_path).load() is None


def refused(url, options):
    with pytest.raises(ModelDeployError) as caught:
        Store(url, options).write_json("runs/1.json", {})
    assert SECRET not in str(caught.value)
    return caught.value


def test_a_bucket_that_is_not_there_is_refused_by_name(s3):
    error = refused("s3://nowhere-at-all/store", s3.options)
    assert isinstance(error, InputError)
    assert "the store s3://nowhere-at-all/store isn't there" in str(error)


def test_an_endpoint_that_is_no_url_is_refused(s3):
    error = refused(s3.url, {**s3.options, "endpoint_url": "no-url"})
    assert isinstance(error, InputError)
    assert "no-url" in str(error)


def test_a_server_that_is_away_is_waited_for_not_given_up(s3):
    options = {**s3.options, "endpoint_url": "http://127.0.0.1:9"}
    error = refused(s3.url, {**options, "config_kwargs": {"retries": {"max_attempts": 0}}})
    assert isinstance(error, UnavailableError)
    assert "http://127.0.0.1:9" in str(error)


def test_credentials_that_are_not_there_are_missed_by_name(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    error = refused(s3.url, {"endpoint_url": s3.endpoint})
    assert isinstance(error, InputError)
    assert "store_conn_id" in str(error)


def test_a_url_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(InputError, match="store_conn_id") as caught:
        Store(f"s3://{KEY}:{SECRET}@models/store")
    assert SECRET not in str(caught.value)


def test_a_step_runs_from_the_command_line_on_a_store_elsewhere(s3, url, store, tmp_path, capsys):
    """`run --json --store-options FILE`, as a pod does it, and `verify` after it."""
    from tests.flows.small_onnx import write_model

    write_model(tmp_path / "model.onnx", seed=0)
    options = tmp_path / "options.json"
    options.write_text(json.dumps(s3.options))
    spec = {"name": "toy", "source": str(tmp_path / "model.onnx")}
    request = {
        "schema_version": 1,
        "step": "ingest",
        "spec": spec,
        "inputs": {},
        "store": url,
        "result": "runs/1.json",
    }
    command = ["run", "ingest", "--json", json.dumps(request), "--store-options", str(options)]
    assert main(command) == 0
    artifact = store.read_json("runs/1.json")["artifact"]
    assert main(["verify", artifact["uri"], "--store-options", str(options)]) == 0
    assert '"verified": 1' in capsys.readouterr().out
    assert SECRET not in json.dumps(store.read_json("runs/1.json"))
    assert main(["run", "prepare", "--json", json.dumps(request)]) == 3
    assert "is for another step" in capsys.readouterr().err


def test_options_that_are_no_object_are_refused_without_repeating_them(tmp_path, capsys):
    options = tmp_path / "options.json"
    options.write_text(json.dumps([SECRET]))
    assert main(["run", "ingest", "--json", "{}", "--store-options", str(options)]) == 3
    said = capsys.readouterr().err
    assert SECRET not in said
