"""Keeps one service as its desired.json says: `python supervisor.py ROOT_OF_SERVICE [--detach]`.

A program of one file, standard library only, started by path: it must run before, beside and after any
release of the server. It knows processes, signals and files; it knows no model, no HTTP and no reason for a
change.

It is level-triggered. Every tenth of a second it compares desired.json with its processes and takes the next
step towards it, so that it doesn't matter when, or how often, somebody changed their mind. It holds the
public listening socket; each server inherits it, accepts from it after SIGUSR1 and stops after SIGUSR2. The
revision that served goes on until the new one accepts. Servers end with it, by SIGKILL too: it holds the
other end of their stdin.

Exit codes: 0 nothing to serve, asked to end, or another supervisor is there; 2 desired.json can't be read;
4 the port can't be listened on (status.json says why).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TICK_SECONDS = 0.1
BIND_PATIENCE_SECONDS = 3.0
LOCK_PATIENCE_SECONDS = 2.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 10.0
# A process that lived this long wasn't in a crash loop: its next crash is retried at once.
STABLE_SECONDS = 60.0
# Signals can get lost in a process that is just ending or starting its loop: ask again.
ASK_AGAIN_SECONDS = 2.0
CANDIDATE_CRASHES = 3
# Bad arguments and a refused servable: the next try ends the same way.
PERMANENT_EXITS = (2, 3)
LOG_BYTES = 4 * 1024 * 1024

Json = dict[str, Any]


@dataclass
class Revision:
    """What is known of one revision, and its process while there is one."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    state: str = "starting"
    port: int | None = None
    public: bool = False
    exits: int = 0
    crashes: int = 0
    reason: str | None = None
    started_at: float = 0.0
    retry_at: float = 0.0
    asked_at: float = 0.0
    ended_at: float | None = None
    log_start: int = 0

    def to_json(self) -> Json:
        """Return the revision as status.json shows it."""
        return {
            "pid": self.process.pid if self.process else None,
            "port": self.port,
            "state": self.state,
            "public": self.public,
            "exits": self.exits,
            "reason": self.reason,
        }


@dataclass
class Service:
    """The service's folder, its public socket, and what is wanted and running."""

    root: Path
    listener: socket.socket
    desired: Json
    revisions: dict[str, Revision] = field(default_factory=dict)
    desired_key: tuple[int, ...] = ()
    status: Json = field(default_factory=dict)
    stopping: bool = False

    @property
    def wanted(self) -> list[str]:
        """The revisions that should run."""
        return [name for name in (self.desired.get("live"), self.desired.get("candidate")) if name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Supervise until there is nothing to serve; return the exit code."""
    parser = argparse.ArgumentParser(description="Keep one service as its desired.json says.")
    parser.add_argument("root", type=Path, help="folder of the service")
    parser.add_argument("--detach", action="store_true", help="go on as a child of init")
    options = parser.parse_args(arguments)
    if options.detach and os.fork():
        # Whoever started us gets no zombie, and ends his own children without ending the service.
        os._exit(0)
    root = options.root.resolve()
    # A bare descriptor, never closed: the lock is free when the process is gone, and not a moment earlier.
    lock = os.open(root / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o644)
    if not _lock(lock):
        _say(f"another supervisor holds the lock of {root}")
        return 0
    return _supervise(root)


def _supervise(root: Path) -> int:
    # What an earlier supervisor saw is over.
    (root / "status.json").unlink(missing_ok=True)
    try:
        desired = json.loads((root / "desired.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except ValueError as error:
        _write_json(root / "status.json", {"pid": os.getpid(), "error": f"desired.json: {error}"})
        return 2
    try:
        listener = _listen(desired["host"], desired["port"])
    except OSError as error:
        text = f"can't listen on {desired['host']}:{desired['port']}: {error}"
        _say(text)
        status = {"pid": os.getpid(), "generation": desired.get("generation"), "error": text}
        _write_json(root / "status.json", status)
        return 4
    service = Service(root, listener, desired)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(service, "stopping", True))
    _say(f"supervising {root}")
    ticks = 0
    while not service.stopping and _read_desired(service) and service.wanted:
        reconcile(service, time.monotonic())
        _write_status(service)
        ticks += 1
        if ticks % 50 == 0:
            _bound_logs(root)
        time.sleep(TICK_SECONDS)
    _end_all(service)
    _say("ended")
    return 0


def reconcile(service: Service, now: float) -> None:
    """Take every step towards desired.json that can be taken now."""
    for revision in service.revisions.values():
        _observe(service, revision, now)
    for name in service.wanted:
        revision = service.revisions.setdefault(name, Revision(name))
        if revision.process is None and revision.state != "failed" and now >= revision.retry_at:
            _start(service, revision, now)
    live = service.revisions.get(service.desired.get("live") or "")
    if live and live.process and live.state == "ready" and not live.public:
        _ask(live, signal.SIGUSR1, now)
    # The heart of it: nobody is asked to stop before somebody else accepts.
    relieved = live.public if live else service.desired.get("live") is None
    for revision in [r for r in service.revisions.values() if r is not live]:
        _retire(service, revision, now, relieved=relieved)


def _retire(service: Service, revision: Revision, now: float, *, relieved: bool) -> None:
    if revision.process is None:
        if revision.name not in service.wanted:
            del service.revisions[revision.name]
    elif revision.public:
        if relieved:
            _ask(revision, signal.SIGUSR2, now)
    elif revision.name not in service.wanted:
        _end(service, revision, now)


def _observe(service: Service, revision: Revision, now: float) -> None:
    if revision.process is None:
        return
    code = revision.process.poll()
    if code is not None:
        _on_exit(service, revision, code, now)
        return
    try:
        ready = json.loads(_ready_file(service, revision).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    # A file of an earlier process says nothing about this one.
    if ready.get("pid") != revision.process.pid:
        return
    if ready.get("public") != revision.public:
        revision.asked_at = 0.0
        _say(f"{revision.name}: {'accepts public requests' if ready['public'] else 'private'}")
    revision.port, revision.public = ready["port"], bool(ready.get("public"))
    if revision.state == "starting":
        revision.state, revision.reason = "ready", None


def _on_exit(service: Service, revision: Revision, code: int, now: float) -> None:
    if revision.process and revision.process.stdin:
        revision.process.stdin.close()
    asked = revision.ended_at is not None
    lived = now - revision.started_at
    revision.process, revision.port, revision.public, revision.ended_at = None, None, False, None
    revision.state = "starting"
    if asked:
        _say(f"{revision.name}: ended")
        revision.retry_at = now
        return
    revision.exits += 1
    revision.crashes = 1 if lived > STABLE_SECONDS else revision.crashes + 1
    revision.reason = f"exit code {code}: {_log_tail(service, revision)}"
    _say(f"{revision.name}: {revision.reason}")
    delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (revision.crashes - 1))
    revision.retry_at = now + delay
    # A live revision is never given up: the disk may come back, and nobody else serves.
    if revision.name != service.desired.get("live") and (
        code in PERMANENT_EXITS or revision.crashes >= CANDIDATE_CRASHES
    ):
        revision.state = "failed"


def _start(service: Service, revision: Revision, now: float) -> None:
    desired = service.desired
    ready_file = _ready_file(service, revision)
    ready_file.parent.mkdir(exist_ok=True)
    ready_file.unlink(missing_ok=True)
    log = service.root / "logs" / f"{revision.name}.log"
    log.parent.mkdir(exist_ok=True)
    command = [
        desired["python"],
        str(service.root / "releases" / revision.name / "start.py"),
        *("--host", "127.0.0.1", "--port", "0"),
        *("--public-fd", str(service.listener.fileno())),
        *("--ready-file", str(ready_file)),
        *("--drain-seconds", str(_drain_seconds(service))),
        "--lifeline",
    ]
    if desired.get("threads"):
        command += ["--threads", str(desired["threads"])]
    revision.started_at, revision.asked_at, revision.ended_at = now, 0.0, None
    with log.open("ab") as stream:
        revision.log_start = stream.tell()
        try:
            revision.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd="/",
                pass_fds=[service.listener.fileno()],
                # A release is immutable: no __pycache__ beside its files.
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            stream.write(f"{command[0]}: {error}\n".encode())
    if revision.process is None:
        _on_exit(service, revision, 127, now)
    else:
        _say(f"{revision.name}: started as {revision.process.pid}")


def _ask(revision: Revision, number: signal.Signals, now: float) -> None:
    if revision.process and now - revision.asked_at >= ASK_AGAIN_SECONDS:
        revision.asked_at = now
        revision.process.send_signal(number)


def _end(service: Service, revision: Revision, now: float) -> None:
    if revision.process is None:
        return
    if revision.ended_at is None:
        revision.ended_at, revision.state = now, "draining"
        revision.process.terminate()
    elif now - revision.ended_at > _drain_seconds(service) + 2.0:
        revision.process.kill()


def _end_all(service: Service) -> None:
    # Ours first: a client that connects from here on is refused, not left waiting in the queue.
    service.listener.close()
    while any(revision.process for revision in service.revisions.values()):
        now = time.monotonic()
        for revision in service.revisions.values():
            _end(service, revision, now)
            _observe(service, revision, now)
        _write_status(service)
        time.sleep(TICK_SECONDS / 2)
    (service.root / "status.json").unlink(missing_ok=True)


def _read_desired(service: Service) -> bool:
    path = service.root / "desired.json"
    try:
        info = path.stat()
        key = (info.st_mtime_ns, info.st_ino, info.st_size)
        if key == service.desired_key:
            return True
        desired = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError as error:
        # Somebody's edit by hand: what was wanted before is still the best guess.
        _say(f"desired.json: {error}")
        return True
    if desired.get("generation") != service.desired.get("generation"):
        # A new decision gets a new chance.
        for revision in service.revisions.values():
            if revision.state == "failed":
                revision.state, revision.crashes, revision.retry_at = "starting", 0, 0.0
    service.desired, service.desired_key = desired, key
    return True


def _write_status(service: Service) -> None:
    status = {
        "pid": os.getpid(),
        "host": service.desired.get("host"),
        "port": service.desired.get("port"),
        "generation": service.desired.get("generation"),
        "processes": {name: revision.to_json() for name, revision in sorted(service.revisions.items())},
    }
    if status != service.status:
        _write_json(service.root / "status.json", status)
        service.status = status


def _write_json(path: Path, value: Json) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    temporary.replace(path)


def _drain_seconds(service: Service) -> float:
    return float(service.desired.get("drain_seconds") or 10.0)


def _ready_file(service: Service, revision: Revision) -> Path:
    return service.root / "run" / f"{revision.name}.json"


def _listen(host: str, port: int) -> socket.socket:
    # The servers of a supervisor that was killed let go of the port within moments: wait for them.
    deadline = time.monotonic() + BIND_PATIENCE_SECONDS
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=2048)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(TICK_SECONDS)


def _lock(lock: int) -> bool:
    # Somebody who only looks whether the lock is held holds it for a moment himself.
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(TICK_SECONDS)
        else:
            # Whoever must end us by force reads the number here; it is ours while the lock is held.
            os.truncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return True


def _log_tail(service: Service, revision: Revision) -> str:
    with (service.root / "logs" / f"{revision.name}.log").open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(revision.log_start if revision.log_start <= size else 0, size - 2000))
        lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    return " | ".join(lines[-5:]) or "no output"


def _bound_logs(root: Path) -> None:
    # The processes write in append mode, so that a shortened file is simply written on.
    for log in (root / "logs").glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES:
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
                os.truncate(log, 0)


def _say(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(stamp, text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
