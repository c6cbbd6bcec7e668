"""One writer at a time: a Lease that is renewed while it is held, and given up before anybody else could take it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import allow
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.kinds import api_version
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import ExistsError, StaleError
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import labels
from airflow_model_deploy.engine.errors import ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object

_MARGIN = 0.2  # the share of the duration left for a write that `require` has just allowed
_POLLS = 5  # how often a duration another holder's record is looked at


@contextmanager
def held(
    cluster: Cluster,
    name: str,
    *,
    duration_s: int = 15,
    wait_s: float | None = None,
    renewer: Cluster | None = None,
) -> Iterator[Lease]:
    """Hold a Lease while the block lasts, renewed by a thread; released at the end.

    Nobody's clock is believed but our own: another holder's Lease may be taken when its record hasn't changed for
    its whole duration since we first saw it.

    Args:
        cluster: takes and releases it.
        name: the Lease's, which is the service's.
        duration_s: after how long without a renewal it may be taken from us.
        wait_s: how long to wait for another holder. None: until it is seen to live, or to have expired.
        renewer: makes the renewals; None: a `Cluster` of its own.

    Raises:
        UnavailableError: somebody else holds it; names them.
    """
    lease = Lease(cluster, name, duration_s)
    lease.acquire(wait_s)
    patience = duration_s / 3
    mine = renewer or Cluster(
        cluster.connection, cluster.namespace, patience_s=patience, timeout_s=max(1.0, patience)
    )
    thread = threading.Thread(target=lease.keep, args=(mine,), name=f"lease-{name}", daemon=True)
    thread.start()
    cluster.guard = lease.require
    try:
        yield lease
    finally:
        cluster.guard = allow
        lease.ended.set()
        thread.join(duration_s)
        if renewer is None:
            mine.close()
        lease.release()


class Lease:
    """A Lease and what we know of it; made by `held`."""

    def __init__(self, cluster: Cluster, name: str, duration_s: int) -> None:
        self.name, self.duration_s = name, duration_s
        self.identity = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.ended = threading.Event()
        self._cluster = cluster
        self._lock = threading.Lock()
        self._record: Object = {}
        self._ours_until = 0.0
        self._taken_by: str | None = None

    def require(self) -> None:
        """Call before every write.

        Raises:
            UnavailableError: the Lease isn't surely ours any more.
        """
        with self._lock:
            taken, late = self._taken_by, _now() >= self._ours_until
        if taken is None and not late:
            return
        found = f"it is held by {taken}" if taken else f"it couldn't be renewed for {self.duration_s} s"
        raise UnavailableError(
            f"the Lease {self.name} is lost",
            found=found,
            wanted=self.identity,
            remedy="Run it again: it goes on from where the cluster is",
        )

    def acquire(self, wait_s: float | None) -> None:
        """Take the Lease; see `held`."""
        began = _now()
        record, since = ("", "", 0), began
        while True:
            found = self._cluster.get("Lease", self.name)
            if found is None or not _holder(found) or _holder(found) == self.identity:
                if self._take(self._cluster, found):
                    return
                continue
            now, news = _now(), _record(found)
            lives = record[0] != "" and news != record
            if news != record:
                record, since = news, now
            duration_s = max(1, record[2] or self.duration_s)
            if now - since >= duration_s:
                if self._take(self._cluster, found):
                    return
                continue
            if (lives and wait_s is None) or (wait_s is not None and now - began >= wait_s):
                raise self._refused(found)
            time.sleep(min(duration_s / _POLLS, since + duration_s - now))

    def keep(self, renewer: Cluster) -> None:
        """Renew until it ends or is lost."""
        pause = self.duration_s / 3
        while not self.ended.wait(pause):
            try:
                if not self._renew(renewer):
                    return
            except UnavailableError:
                pause = min(1.0, self.duration_s / 10)  # `require` tells when it has been too long
            except ModelDeployError as e:
                self._lose(f"nobody known: {e}")
                return
            else:
                pause = self.duration_s / 3

    def release(self) -> None:
        """Leave it to the next one at once, where it's still ours; else it expires."""
        with self._lock:
            surely, record = self._taken_by is None, self._record
            self._ours_until = 0.0
        if surely and record:
            freed = record | {"spec": record["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}}
            with contextlib.suppress(ModelDeployError):
                self._cluster.replace(freed)

    def _renew(self, renewer: Cluster) -> bool:
        if self._take(renewer, self._record):
            return True
        found = renewer.get("Lease", self.name)
        if (
            found is not None and _holder(found) == self.identity
        ):  # somebody touched it, or an answer was lost
            self._take(renewer, found)  # where that was too late again, the next renewal finds out
            return True
        self._lose("nobody: it was deleted" if found is None else _holder(found) or "nobody")
        return False

    def _take(self, cluster: Cluster, found: Object | None) -> bool:
        """Write ourselves into it; False where somebody was faster."""
        sent = _now()
        ours = self._ours(found)
        try:
            record = cluster.create(ours) if found is None else cluster.replace(ours)
        except (ExistsError, StaleError):
            return False
        with self._lock:
            self._record = record
            self._ours_until = sent + self.duration_s * (1 - _MARGIN)
        return True

    def _ours(self, found: Object | None) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict((found or {}).get("spec") or {})
        if spec.get("holderIdentity") != self.identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {"holderIdentity": self.identity, "leaseDurationSeconds": self.duration_s, "renewTime": now}
        head = found or {
            "apiVersion": api_version("Lease"),
            "kind": "Lease",
            "metadata": {"name": self.name, "labels": labels(self.name)},
        }
        return head | {"spec": spec}

    def _lose(self, holder: str) -> None:
        with self._lock:
            self._taken_by = holder

    def _refused(self, found: Object) -> UnavailableError:
        since = found["spec"].get("acquireTime")
        return UnavailableError(
            f"the Lease {self.name} in namespace {self._cluster.namespace}",
            found=f"held by {_holder(found)} since {since}",
            wanted="nobody else who changes this service",
            remedy="Wait until that run has ended, or end it",
        )


def _holder(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _record(lease: Object) -> tuple[str, str, int]:
    spec = lease.get("spec") or {}
    return _holder(lease), str(spec.get("renewTime")), int(spec.get("leaseDurationSeconds") or 0)


def _now() -> float:
    """A clock that nobody sets, and that goes on while the machine sleeps, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
