from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading

import pytest

from airflow_model_deploy.engine.errors import InputError, IntegrityError, UnavailableError
from airflow_model_deploy.engine.packaging.images import File, ImageSpec, Layer, Settings, narration
from airflow_model_deploy.engine.packaging.images.blobs import (
    OCI_MANIFEST,
    BytesContent,
    Descriptor,
    RawManifest,
    sha256_of,
)
from airflow_model_deploy.engine.packaging.images.layout import Layout
from tests.engine.packaging.images.conftest import builder


def blob_paths(path):
    return sorted(p.name for p in (path / "blobs" / "sha256").iterdir())


def test_an_image_in_a_layout(spec_on, base_layout, tmp_path):
    built = builder().build(spec_on(base_layout), f"oci-layout:{tmp_path}/out", log=lambda _: None)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert json.loads((out / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    assert entry["digest"] == built.digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": built.tag}
    manifest = json.loads((out / "blobs" / "sha256" / built.digest[7:]).read_text())
    named = {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"]), built.digest}
    assert {f"sha256:{name}" for name in blob_paths(out)} == named
    for name in blob_paths(out):
        assert sha256_of((out / "blobs" / "sha256" / name).read_bytes()) == f"sha256:{name}"
    assert built.reference == f"oci-layout:{out}@{built.digest}"
    assert built.tag.startswith("model-")
    assert built.size_bytes == manifest["config"]["size"] + sum(x["size"] for x in manifest["layers"])
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == [
        "tar+gzip",
        "tar+gzip",
        "tar",
    ]


def test_again_is_a_no_op(spec_on, base_layout, tmp_path):
    destination = f"oci-layout:{tmp_path}/out"
    first = builder().build(spec_on(base_layout), destination, log=lambda _: None)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = builder().build(spec_on(base_layout), destination, log=lambda _: None)
    assert (first.existed, again.existed, again.uploaded_bytes) == (False, True, 0)
    assert (again.digest, again.image_id, again.size_bytes) == (
        first.digest,
        first.image_id,
        first.size_bytes,
    )
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_an_image_on_an_image(spec_on, base_layout, tmp_path):
    runtime = builder().build(spec_on(base_layout, "runtime"), f"oci-layout:{tmp_path}/r", log=lambda _: None)
    model = builder().build(spec_on(runtime.reference), f"oci-layout:{tmp_path}/m", log=lambda _: None)
    assert model.base_digest == runtime.digest
    assert set(blob_paths(tmp_path / "r")) - set(blob_paths(tmp_path / "m")) == {
        runtime.digest[7:],
        runtime.image_id[7:],
    }


def test_a_changed_blob_of_the_base_is_refused(spec_on, base_layout, tmp_path):
    manifest = Layout(tmp_path / "base layout").read_manifest("1").json("")
    layer = tmp_path / "base layout/blobs/sha256" / manifest["layers"][0]["digest"][7:]
    data = bytearray(layer.read_bytes())
    data[-1] ^= 1
    layer.write_bytes(data)
    with pytest.raises(IntegrityError, match="isn't what its digest says"):
        builder().build(spec_on(base_layout), f"oci-layout:{tmp_path}/out", log=lambda _: None)
    assert not (tmp_path / "out" / "index.json").exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.parametrize(
    "reference", ["oci-layout:{0}:2", "oci-layout:{0}@sha256:" + "0" * 64, "oci-layout:/none"]
)
def test_a_base_that_is_not_there(reference, spec_on, base_layout, tmp_path):
    with pytest.raises(InputError):
        builder().build(
            spec_on(reference.format(tmp_path / "base layout")), f"oci-layout:{tmp_path}/out", log=print
        )


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha512:" + "0" * 64, "x"])
def test_no_digest_leads_out_of_the_layout(tmp_path, digest):
    with pytest.raises(IntegrityError, match="sha256:<hex>"):
        Descriptor("x", digest, 1)
    with pytest.raises(IntegrityError, match="oddly"):
        Layout(tmp_path)._blob(digest)


def test_two_writers_lose_no_tag(tmp_path):
    manifests = {f"tag-{n}": RawManifest(OCI_MANIFEST, b'{"n":%d}' % n) for n in range(12)}

    def write(tag):
        Layout(tmp_path).put_manifest(manifests[tag], tag)

    threads = [threading.Thread(target=write, args=(tag,)) for tag in manifests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tag, manifest in manifests.items():
        assert Layout(tmp_path).read_manifest(tag) == manifest


def test_a_tag_moves(tmp_path):
    for n in range(2):
        Layout(tmp_path).put_manifest(RawManifest(OCI_MANIFEST, b'{"n":%d}' % n), "tag")
    assert len(json.loads((tmp_path / "index.json").read_text())["manifests"]) == 1
    assert Layout(tmp_path).read_manifest("tag").data == b'{"n":1}'


@pytest.fixture
def small_disk(tmp_path):
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not unmount:
        pytest.skip("a small disk is mounted by root, with mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder, lambda: subprocess.run([mount, "-o", "remount,size=8m", str(folder)], check=True)
    subprocess.run([unmount, "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_a_retry_succeeds(small_disk, spec_on, base_layout):
    folder, enlarge = small_disk
    with pytest.raises(UnavailableError, match=re.escape(str(folder))) as caught:
        builder().build(spec_on(base_layout), f"oci-layout:{folder}/out", log=lambda _: None)
    assert "No space left on device" in str(caught.value)
    assert not (folder / "out" / "index.json").exists()
    assert not list(folder.rglob("*.tmp"))
    enlarge()
    assert not builder().build(spec_on(base_layout), f"oci-layout:{folder}/out", log=lambda _: None).existed


def test_a_full_temporary_disk_is_told(small_disk, base_layout, tmp_path, monkeypatch):
    folder, _ = small_disk
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    layers = (Layer("code", (File("opt/x", os.urandom(300_000)),)),)
    with pytest.raises(UnavailableError, match=r"No space left on device.*TMPDIR") as caught:
        builder().build(
            ImageSpec(base_layout, layers, Settings(), "runtime"), f"oci-layout:{tmp_path}/out", log=print
        )
    assert str(folder) in str(caught.value)


def test_a_tag_that_survived_its_blobs_is_repaired(spec_on, base_layout, tmp_path):
    destination = f"oci-layout:{tmp_path}/out"
    first = builder().build(spec_on(base_layout), destination, log=lambda _: None)
    config = tmp_path / "out/blobs/sha256" / first.image_id[7:]
    data = config.read_bytes()
    config.unlink()
    again = builder().build(spec_on(base_layout), destination, log=lambda _: None)
    assert (again.existed, again.digest) == (False, first.digest)
    assert config.read_bytes() == data


def test_a_large_blob_tells_how_far_it_is(spec_on, base_layout, tmp_path, monkeypatch):
    monkeypatch.setattr(narration, "_SECONDS_BETWEEN_LINES", 0.0)
    lines = []
    builder().build(spec_on(base_layout), f"oci-layout:{tmp_path}/out", log=lines.append)
    assert "layer model: 0 of 0 MB" in lines


def test_a_blob_that_is_there_is_not_written_again(tmp_path):
    data = b"blob"
    descriptor = Descriptor("x", sha256_of(data), len(data))
    assert [Layout(tmp_path).put(descriptor, BytesContent(data)) for _ in range(2)] == [4, 0]
