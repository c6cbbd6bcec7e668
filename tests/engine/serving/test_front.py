"""The front with real servers: who accepts is what is wanted, without a gap, whoever comes and goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.serving.servables import (
    REPOSITORY,
    Server,
    infer_body,
    linear,
    request,
    running,
    until,
    write_servable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FRONT = [sys.executable, "-m", "airflow_model_deploy.engine.serving.front", "--state"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@dataclass
class Front:
    state: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*FRONT, str(self.state), "serve", "--host", "127.0.0.1", "--port", str(self.port)],
            env=ENVIRONMENT,
        )
        until(lambda: self.ask("read").returncode == 0, "the front answers")

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(5)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*FRONT, str(self.state), *arguments],
            env=ENVIRONMENT,
            capture_output=True,
            timeout=20,
            check=False,
        )

    def read(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.ask("read").stdout)
        assert document.pop("protocol") == 1
        return document

    def want(self, live: str | None) -> None:
        done = self.ask("write", str(self.read()["generation"]), json.dumps({"live": live}))
        assert done.returncode == 0, done

    def public(self) -> list[str]:
        status = json.loads((self.state / "status.json").read_text())
        return [name for name, server in status["processes"].items() if server["public"]]

    def server(self, folder: Path, revision: str) -> contextlib.AbstractContextManager[Server]:
        work = self.state / f"work-{revision}"
        return running(folder, work, "--front", str(self.state / "front.sock"), "--revision", revision)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        front = Front(tmp_path, probe.getsockname()[1])
    front.start()
    yield front
    assert front.process is not None
    front.process.kill()
    front.process.wait()


@contextlib.contextmanager
def asking(front: Front) -> Iterator[list[str]]:
    """Ask all the time, each over a connection of its own; every answer but 200 is a failure."""
    seen: list[str] = []
    done = threading.Event()

    def drive() -> None:
        while not done.is_set():
            try:
                status, answer = request(f"{front.url}/v2/models/tiny/infer", infer_body([[1, 2, 3, 4]]))
                seen.append(str(answer["model_version"]) if status == 200 else f"failed: {status}")
            except OSError as error:
                seen.append(f"failed: {error}")
            time.sleep(0.002)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("servables")
    return [write_servable(root / name, linear(), version=name) for name in ("v1", "v2")]


def test_the_socket_goes_to_whom_is_wanted_without_a_failed_request(
    front: Front, folders: list[Path]
) -> None:
    with front.server(folders[0], "a") as first:
        front.want("a")
        until(lambda: front.public() == ["a"], "a accepts")
        with asking(front) as seen:
            # Wanted before it is there: the other goes on.
            front.want("b")
            until(lambda: len(seen) > 20, "answers")
            assert front.public() == ["a"]
            with front.server(folders[1], "b"):
                until(lambda: front.public() == ["b"], "b accepts")
                until(lambda: "v2" in seen[-5:], "b answers")
                assert request(f"{first.url}/v2/health/ready")[0] == 200
                front.want("a")
                until(lambda: front.public() == ["a"], "a accepts again")
            count = len(seen)
            until(lambda: len(seen) > count + 20, "still answered")
            assert set(seen[count:]) == {"v1"}
        assert [one for one in seen if "failed" in one] == []


def test_a_front_that_was_killed_comes_back_to_what_was_wanted(front: Front, folders: list[Path]) -> None:
    with front.server(folders[0], "a") as server:
        front.want("a")
        until(lambda: front.public() == ["a"], "a accepts")
        pid, wanted = server.process.pid, front.read()
        front.end(signal.SIGKILL)
        # The server still accepts from the socket it was given; a front elsewhere has another.
        assert request(f"{front.url}/v2/health/ready")[0] == 200
        with socket.create_server(("127.0.0.1", 0)) as probe:
            front.port = probe.getsockname()[1]
        front.start()
        until(lambda: front.public() == ["a"], "a accepts from the new socket")
        assert request(f"{front.url}/v2/health/ready")[0] == 200
        assert (front.read(), server.process.pid) == (wanted, pid)
    until(lambda: front.public() == [], "the server is gone")
    assert front.end() == 0


def test_who_wrote_meanwhile_wins_and_one_decides_at_a_time(front: Front) -> None:
    front.want("a")
    late = front.ask("write", "0", json.dumps({"live": "b"}))
    assert late.returncode == 6
    assert json.loads(late.stdout)["conflict"]["live"] == "a"
    assert front.read() == {"live": "a", "generation": 1}
    assert front.ask("write", "1", json.dumps({"live": 5})).returncode == 6

    holder = subprocess.Popen(
        [*FRONT, str(front.state), "lock", "me"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert json.loads(holder.stdout.readline()) == {"locked": True, "protocol": 1}
    refused = front.ask("lock", "you")
    assert (refused.returncode, json.loads(refused.stdout)["conflict"]) == (6, "me")
    holder.communicate(b"")
    assert front.ask("lock", "you").returncode == 0


def test_nonsense_and_other_users_are_turned_away(front: Front) -> None:
    path = str(front.state / "front.sock")
    for packet in (b"{", b"[]", b"null", b'{"ask": "tea"}', b'{"ask": "write"}', b'{"revision": 1}', b"\xff"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(5)
            channel.connect(path)
            channel.send(packet)
            with contextlib.suppress(ConnectionResetError):
                assert channel.recv(100) == b""
    assert front.ask("read").returncode == 0
    if os.getuid() == 0:
        # Somebody who got at the socket's file all the same.
        for folder in (front.state, *front.state.parents):
            if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        (front.state / "front.sock").chmod(0o666)
        program = (
            "import os, socket; os.setuid(65534)\n"
            "channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            f"channel.connect({path!r}); channel.settimeout(5)\n"
            'channel.send(b\'{"ask": "read"}\'); print(channel.recv(100))'
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.stdout.strip() in ("b''", ""), done
        assert done.stdout or "Connection reset" in done.stderr or "Broken pipe" in done.stderr, done


def test_one_front_a_folder_and_a_port_of_its_own(front: Front) -> None:
    again = front.ask("serve", "--host", "127.0.0.1", "--port", "0")
    assert (again.returncode, b"another front holds" in again.stderr) == (6, True)
    other = front.state / "other"
    other.mkdir()
    taken = subprocess.run(
        [*FRONT, str(other), "serve", "--host", "127.0.0.1", "--port", str(front.port)],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (taken.returncode, b"can't listen" in taken.stderr) == (4, True)
    assert Front(other, 0).ask("read").returncode == 5


def test_another_protocol_is_refused_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        front = Front(tmp_path, probe.getsockname()[1])
    front.start()
    report = {"protocol": 2, "revision": "a", "pid": 1, "state": "ready"}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(5)
            channel.connect(str(tmp_path / "front.sock"))
            channel.send(json.dumps(report).encode())
            assert channel.recv(100) == b""
    finally:
        front.end()
    assert "a speaks protocol 2, this front 1" in capfd.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}", "5", "{1: 2}"])
def test_a_damaged_decision_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "desired.json").write_text(content)
    done = Front(tmp_path, 0).ask("serve", "--host", "127.0.0.1", "--port", "0")
    assert (done.returncode, b"desired.json" in done.stderr, b"deploy again" in done.stderr) == (
        2,
        True,
        True,
    )


def test_a_front_that_ends_before_it_answers_is_no_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.bind(str(tmp_path / "front.sock"))
        control.listen()
        thread = threading.Thread(target=lambda: control.accept()[0].close())
        thread.start()
        done = Front(tmp_path, 0).ask("read")
        thread.join()
    assert (done.returncode, done.stdout) == (5, b"")
