from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tracemalloc
import zlib

import pytest

from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging.images import File, Folder, Layer
from airflow_model_deploy.engine.packaging.images.blobs import sha256_of
from airflow_model_deploy.engine.packaging.images.layers import LayerBlob, diff_id, measure
from airflow_model_deploy.engine.packaging.images.tar import TarStream

LONG = "opt/" + "a" * 90 + "/" + "b" * 90 + ".py"


def everything(*, compressed=True):
    return Layer(
        "all",
        (
            File("usr/local/bin/run", b"#!/bin/sh\n", executable=True),
            File("opt/ü 文.txt", b"text", uid=7, gid=8),
            File(LONG, b"x" * 1000),
            Folder("run/app", 0o700, 65532, 65532),
            File("a", b""),
        ),
        compressed,
    )


def whole(stream):
    return b"".join(stream.read())


def test_members_are_sorted_with_their_parents_and_fixed_in_time():
    with tarfile.open(fileobj=io.BytesIO(whole(TarStream(everything())))) as archive:
        members = archive.getmembers()
        assert archive.extractfile(LONG).read() == b"x" * 1000
    assert [m.name for m in members] == sorted(
        (
            *("a", "opt", "opt/" + "a" * 90, LONG, "opt/ü 文.txt", "run", "run/app"),
            *("usr", "usr/local", "usr/local/bin", "usr/local/bin/run"),
        )
    )
    by_name = {m.name: m for m in members}
    assert {m.mtime for m in members} == {0}
    assert {m.uname for m in members} | {m.gname for m in members} == {""}
    assert (by_name["run/app"].mode, by_name["run/app"].uid) == (0o700, 65532)
    assert (by_name["run"].mode, by_name["run"].uid) == (0o755, 0)
    assert by_name["usr/local/bin/run"].mode == 0o755
    assert (by_name["opt/ü 文.txt"].mode, by_name["opt/ü 文.txt"].gid) == (0o644, 8)


def test_the_bytes_are_those_of_every_machine():
    assert diff_id(everything()) == "sha256:e865f861a051431fc293e9879ed3275bf8403ad1bbc8a21bd3074c821cd9590c"


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="another deflate gives other bytes")
def test_the_compressed_bytes_are_too():
    with LayerBlob(measure(everything())) as blob:
        assert (
            blob.descriptor.digest
            == "sha256:5354524c399fe1d5a12847229f7895e7bd0fd1ae3c7889aaa62c9eb5c5fe5e42"
        )
        data = b"".join(blob.read())
    assert (len(data), sha256_of(data)) == (blob.descriptor.size, blob.descriptor.digest)
    assert sha256_of(zlib.decompress(data, wbits=31)) == diff_id(everything())
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_order_place_time_and_mask_do_not_matter(tmp_path):
    digests = set()
    for number, mask in enumerate((0o022, 0o077)):
        before = os.umask(mask)
        try:
            folder = tmp_path / f"place {number}"
            folder.mkdir()
            files = []
            for name in ("b.py", "a.py") if number else ("a.py", "b.py"):
                path = folder / name
                path.write_bytes(name.encode())
                os.utime(path, (number, number * 1000))
                files.append(File(f"opt/{name}", path))
        finally:
            os.umask(before)
        with LayerBlob(measure(Layer("code", tuple(files)))) as blob:
            digests.add(blob.descriptor.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("compressed", [True, False])
def test_a_blob_can_be_read_from_any_offset(tmp_path, compressed):
    path = tmp_path / "w"
    path.write_bytes(os.urandom(700_001))
    layer = Layer("w", (File("a", b"1234"), File("w", path), File("z", b"5")), compressed)
    with LayerBlob(measure(layer)) as blob:
        data = b"".join(blob.read())
        assert sha256_of(data) == blob.descriptor.digest
        for offset in (0, 1, 511, 512, 1536, 262_144, 700_000, len(data) - 1, len(data)):
            assert b"".join(blob.read(offset)) == data[offset:]


def test_a_large_file_never_lies_in_memory(tmp_path):
    path = tmp_path / "w"
    with path.open("wb") as stream:
        stream.truncate(300 << 20)
    layer = Layer("w", (File("w", path),), compressed=False)
    tracemalloc.start()
    try:
        found = diff_id(layer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    wanted = hashlib.sha256()
    header = tarfile.TarInfo("w")
    header.size, header.mode = 300 << 20, 0o644
    wanted.update(header.tobuf(tarfile.PAX_FORMAT))
    for _ in range(300):
        wanted.update(bytes(1 << 20))
    wanted.update(bytes(1024))
    assert found == "sha256:" + wanted.hexdigest()


def test_a_file_above_8_gib(tmp_path):
    path = tmp_path / "w"
    with path.open("wb") as stream:
        stream.truncate(9 << 30)
    stream = TarStream(Layer("w", (File("w", path),), compressed=False))
    head = next(stream.read())
    with tarfile.open(fileobj=io.BytesIO(head)) as archive:
        assert archive.next().size == 9 << 30
    assert stream.size == len(head) + (9 << 30) + 1024


def test_links_and_special_files_are_refused_by_name(tmp_path):
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("link", "a link"), ("pipe", "special"), ("gone", "No such file"), ("", "folder")):
        with pytest.raises(InputError, match=said) as caught:
            TarStream(Layer("x", (File("x", tmp_path / name),)))
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_changes_meanwhile_is_refused_by_name(tmp_path, compressed):
    path = tmp_path / "w"
    path.write_bytes(b"before")
    measured = measure(Layer("w", (File("w", path),), compressed))
    path.write_bytes(b"behind")
    os.utime(path, ns=(1, 1))
    with pytest.raises(IntegrityError, match="changed while it was packaged"), LayerBlob(measured) as blob:
        b"".join(blob.read())


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/x",
        "../x",
        "a/../b",
        "a//b",
        "a/./b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a/.wh.b",
        "lib/x.so",
        "var/run/x",
    ],
)
def test_paths_that_would_hurt_the_base_are_refused(path):
    for make in (lambda: File(path, b""), lambda: Folder(path)):
        with pytest.raises(InputError):
            make()


def test_layers_that_contradict_themselves_are_refused():
    for entries in ((), (File("a", b""), Folder("a")), (File("a", b""), File("a/b", b""))):
        with pytest.raises(InputError):
            Layer("x", entries)


def test_content_is_not_shown():
    assert "secret" not in repr(File("a", b"secret"))
