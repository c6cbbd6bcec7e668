from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.containers import ensure_image, fetch_folder, tail
from airflow_model_deploy.engine.errors import InputError
from tests.engine.containers.support import container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import APIClient

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def made(client: APIClient, base: str) -> Iterator[str]:
    """Not started: files come out of it all the same."""
    ensure_image(client, base, log=print)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in {
            "good/servable.json": b"{}",
            "good/deep/model.bin": bytes(3_000_000),
            "link/ok": b"ok",
            "hard/a": b"x",
        }.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for path, kind, target in (
            ("link/password", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard/b", tarfile.LNKTYPE, "hard/a"),
            ("pipe/p", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(path)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        info = tarfile.TarInfo("alias")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)
    with container(client, base, ["true"]) as made:
        client.put_archive(made, "/srv", packed.getvalue())
        yield made


def test_a_folder_comes_out_as_it_was(client: APIClient, made: str, tmp_path: Path) -> None:
    names = fetch_folder(client, made, "/srv/good", tmp_path / "out", max_bytes=4_000_000)
    assert names == ["deep/model.bin", "servable.json"]
    assert (tmp_path / "out" / "servable.json").read_bytes() == b"{}"
    assert (tmp_path / "out" / "deep" / "model.bin").stat().st_size == 3_000_000


@pytest.mark.parametrize(
    ("path", "limits", "words"),
    [
        ("/srv/link", {}, "link/password: neither a regular file nor a folder"),
        ("/srv/hard", {}, "neither a regular file nor a folder"),
        ("/srv/pipe", {}, "neither a regular file nor a folder"),
        ("/srv/alias", {}, "a link to /etc"),
        ("/srv/good/servable.json", {}, "found: a file"),
        ("/srv/good", {"max_bytes": 1000}, "larger than expected"),
        ("/srv/good", {"max_files": 2}, "larger than expected"),
        ("/srv/absent", {}, "absent"),
    ],
)
def test_what_should_not_come_out_stays_inside(
    client: APIClient, made: str, tmp_path: Path, path: str, limits: dict[str, int], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        fetch_folder(client, made, path, tmp_path / "out", **({"max_bytes": 4_000_000} | limits))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_symlink()]


def test_a_folder_with_files_in_it_is_left_alone(client: APIClient, made: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="wanted: empty"):
        fetch_folder(client, made, "/srv/good", tmp_path, max_bytes=4_000_000)


def test_the_last_lines_of_a_container(client: APIClient, base: str) -> None:
    program = "import sys; print('one'); print('two'); print('three', file=sys.stderr)"
    with container(client, base, ["python3", "-uc", program]) as talking:
        assert tail(client, talking) == "none"
        client.start(talking)
        client.wait(talking)
        assert sorted(tail(client, talking, 2).split()) == ["three", "two"]
    assert tail(client, talking) == "none"
