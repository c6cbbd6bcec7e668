"""One child process held by a lifeline: its lines, its end, and its ending from a signal handler or another thread."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_POLL_SECONDS = 0.02
# Airflow kills a task five seconds after it asked it to end: these two together are less.
_LIFELINE_SECONDS, _KILL_SECONDS = 2.0, 2.0
# Output that comes later than this after the child's end is that of processes which it left behind.
_QUIET_SECONDS = 0.5


class Child:
    """A child whose standard input is its lifeline; its output is one stream of lines.

    `end` may be called while `lines` runs, in a handler of a signal that interrupted it too. So nothing here waits
    for a lock that the interrupted code could hold: no buffered streams, no `Popen.wait`.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            list(command),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            close_fds=True,
        )
        self.pid = self._process.pid
        self.ended_by_us = False

    def send(self, content: bytes) -> None:
        """Write to the child's standard input, which stays open."""
        rest = memoryview(content)
        with contextlib.suppress(BrokenPipeError):  # it ended at once; its last line will say why
            while rest and self._process.stdin:
                rest = rest[self._process.stdin.write(rest) or 0 :]

    def lines(self) -> Iterator[str]:
        """Yield the lines as they come, until the child has ended."""
        pending = b""
        for block in self._blocks():
            *whole, pending = (pending + block).split(b"\n")
            yield from (line.decode(errors="replace").rstrip() for line in whole)
        if pending:
            yield pending.decode(errors="replace").rstrip()

    def exit_code(self) -> int:
        """Wait for the end, which `lines` has seen, and return the exit code; -n for an end by signal n."""
        while (code := self._process.poll()) is None:
            time.sleep(_POLL_SECONDS)
        return code

    def end(self) -> None:
        """Close the lifeline, and kill what has not ended after two seconds."""
        if self._has_ended():
            return
        self.ended_by_us = True
        if self._process.stdin:
            self._process.stdin.close()
        if not self._ends_within(_LIFELINE_SECONDS):
            self._kill()
            self._ends_within(_KILL_SECONDS)

    def close(self) -> None:
        """Let go of the pipes, once the child has ended."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def _blocks(self) -> Iterator[bytes]:
        output = self._process.stdout
        if output is None:
            return
        # A grandchild that survives holds the pipe open, and may go on writing: it isn't waited for.
        deadline = None
        while deadline is None or time.monotonic() < deadline:
            if deadline is None and self._has_ended():
                deadline = time.monotonic() + _QUIET_SECONDS
            ready, _, _ = select.select([output], [], [], _QUIET_SECONDS)
            block = os.read(output.fileno(), 65_536) if ready else b""
            if block:
                yield block
            elif ready or deadline is not None:
                return

    def _has_ended(self) -> bool:
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # its end was seen before
            return True

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _kill(self) -> None:
        from airflow_model_deploy.engine.lifeline import end_tree

        end_tree(self.pid)
