"""Blue/green: start beside, check in private, move the traffic by one write, check in public, else go back.

One state machine for every place that can run two revisions at once. It knows revisions, the written decision
and the outcome of checks; how a revision is started, reached and ended is the place's. State is derived from
what the place reports only, so that a call that was killed anywhere is completed by the same call made again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_model_deploy.engine.deployment.check import CheckResult
from airflow_model_deploy.engine.deployment.desired import Desired
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_model_deploy.engine.deployment.check import Check
    from airflow_model_deploy.engine.deployment.desired import Action

    Log = Callable[[str], None]


@dataclass(frozen=True)
class Deployment:
    """What serves now.

    Args:
        revision: the live revision.
        previous: where a rollback would lead.
        url: the public URL.
        changed: False when the revision already served and was only checked.
        golden: the check's result at the public URL.
    """

    revision: str
    previous: str | None
    url: str
    changed: bool
    golden: CheckResult


class Place(Protocol):
    """A service where it runs, as the one who may decide for it sees it."""

    @property
    def name(self) -> str:
        """The service's name, for the log."""
        ...

    @property
    def url(self) -> str:
        """The public URL, as its callers see it."""
        ...

    def read(self) -> Desired:
        """Return the decision as it is now."""
        ...

    def write(self, before: Desired, **changes: Any) -> Desired:
        """Replace the decision that was read as `before`; whoever carries it out begins at once."""
        ...

    def missing(self, revision: str) -> str | None:
        """Return what is there instead when a revision can't be started; None if it can."""
        ...

    def release(self, revision: str) -> Path:
        """Return a folder with the revision's servable: what checks compare with."""
        ...

    def candidate(self, desired: Desired, revision: str) -> AbstractContextManager[str]:
        """See that the revision runs and is ready; give the base URL of its private side.

        Raises:
            RolloutError: it does not start, with the reason.
        """
        ...

    def wait_public(self, desired: Desired) -> None:
        """Wait until the live revision, and no other, takes the public requests."""
        ...

    def public(self, desired: Desired) -> AbstractContextManager[str]:
        """Give the base URL at which this process reaches the live revision's public side."""
        ...

    def wait_gone(self, desired: Desired, revision: str) -> None:
        """See that a revision that isn't wanted any more ends, and wait for it as long as a drain may take."""
        ...

    def settle(self, desired: Desired) -> list[str]:
        """End what isn't wanted and remove what is too old to be kept; return what was removed, in words."""
        ...


def silent(_: str) -> None:
    """Log nothing."""


def put(place: Place, revision: str, check: Check, log: Log) -> Deployment:
    """Make an installed revision the live one, or leave what serves as it is.

    The new revision starts beside the live one and is checked at its private side. Then one write moves the
    traffic to the same process, which is checked again at the public address; the old revision stays at hand
    until that check has passed.

    Raises:
        RolloutError: the revision did not start or was found wrong; what served before serves.
        UnavailableError: somebody else is changing the service, or the public address is taken.
    """
    desired = place.read()
    if desired.unconfirmed and desired.live != revision:
        _finish(place, desired, revision, check, log)
        desired = place.read()
    if desired.live == revision:
        return _complete(place, desired, check, log)
    return _switch(place, desired, revision, "deploy", check, log)


def go_back(place: Place, check: Check, log: Log, attempt: str | None = None) -> Deployment:
    """Make the previous revision the live one if it is healthy; the replaced one becomes the previous.

    Args:
        place: where the service runs.
        check: judges it.
        log: takes lines.
        attempt: names this rollback: made again under the same name, it only checks what it made live.

    Raises:
        RolloutError: there is no previous revision, or it did not start or was found wrong.
        UnavailableError: somebody else is changing the service, or the public address is taken.
    """
    desired = place.read()
    done = attempt is not None and desired.attempt == attempt
    if done and desired.live is None:
        raise RolloutError(
            f"rollback of {place.name}",
            found=f"it was made ({attempt}), and the service was stopped since",
            wanted="a service that serves",
            remedy="Deploy the release that should serve.",
        )
    if done or desired.unconfirmed == "rollback":
        # An earlier call made the switch, and may have been killed since: to go back once more would undo it.
        return _complete(place, desired, check, log, attempt)
    target = desired.previous
    instead = place.missing(target or "")
    if target is None or instead is not None:
        raise RolloutError(
            f"rollback of {place.name}",
            found=f"live {desired.live}, previous {target}, installed {instead or 'none'}",
            wanted="a previous revision that is installed",
            remedy="Deploy the release that should serve.",
        )
    return _switch(place, desired, target, "rollback", check, log, attempt)


def _switch(
    place: Place,
    before: Desired,
    revision: str,
    action: Action,
    check: Check,
    log: Log,
    attempt: str | None = None,
) -> Deployment:
    desired = place.write(before, candidate=revision, unconfirmed=None)
    with (
        _on_failure(lambda: _withdraw(place, desired, revision, log)),
        place.candidate(desired, revision) as url,
    ):
        log(f"{place.name}: revision {revision} is ready at its private port ({url})")
        _refuse_wrong(check(url, place.release(revision)), revision, "at its private port", log)
    # What somebody removed can't take over, nor be gone back to.
    old = before.live if before.live and place.missing(before.live) is None else None
    # The old revision stays as a candidate: if the public check fails, it takes over without loading again.
    promoted = place.write(
        desired,
        live=revision,
        previous=old or (before.previous if before.previous != revision else None),
        candidate=old,
        unconfirmed=action,
        attempt=attempt,
    )
    confirmed, result = _confirm(place, promoted, before, check, log)
    return _done(place, confirmed, result, log, changed=True)


def _complete(
    place: Place, before: Desired, check: Check, log: Log, attempt: str | None = None
) -> Deployment:
    """Check a revision that is live already; finish its promotion where an earlier call was killed."""
    attempt = attempt or before.attempt
    if before.unconfirmed:
        log(f"{place.name}: completing an interrupted {before.unconfirmed} of {before.live}")
        confirmed, result = _confirm(place, place.write(before, attempt=attempt), Desired(), check, log)
        return _done(place, confirmed, result, log, changed=True)
    desired = place.write(before, candidate=None, attempt=attempt)
    result = _check_public(place, desired, check, log)
    return _done(place, desired, result, log, changed=False)


def _finish(place: Place, desired: Desired, following: str, check: Check, log: Log) -> None:
    """Check what an interrupted call made live, or take it back, before `following` takes its place.

    What nobody has seen to be right must not be what a failure, or a rollback, leads to.
    """
    log(f"{place.name}: completing an interrupted {desired.unconfirmed} of {desired.live}")
    try:
        _confirm(place, place.write(desired), Desired(), check, log, following)
    except RolloutError as error:
        log(f"{place.name}: {error}")


def _confirm(
    place: Place, promoted: Desired, before: Desired, check: Check, log: Log, following: str | None = None
) -> tuple[Desired, CheckResult]:
    with _on_failure(lambda: _revert(place, promoted, before, log, following)):
        result = _check_public(place, promoted, check, log)
    confirmed = place.write(promoted, candidate=None, unconfirmed=None)
    log(f"{place.name}: revision {confirmed.live} serves at {place.url}")
    return confirmed, result


def _done(place: Place, desired: Desired, result: CheckResult, log: Log, *, changed: bool) -> Deployment:
    for removed in place.settle(desired):
        log(f"{place.name}: {removed} is removed")
    return Deployment(str(desired.live), desired.previous, place.url, changed=changed, golden=result)


def _check_public(place: Place, desired: Desired, check: Check, log: Log) -> CheckResult:
    revision = str(desired.live)
    place.wait_public(desired)
    with place.public(desired) as url:
        result = check(url, place.release(revision))
    _refuse_wrong(result, revision, f"at {place.url}", log)
    return result


def _refuse_wrong(result: CheckResult, revision: str, where: str, log: Log) -> None:
    log(f"check of {revision} {where}: {result.summary}")
    if not result.passed:
        raise RolloutError(
            f"revision {revision} {where}",
            found=result.summary,
            wanted="a passed check",
            remedy="Nothing was put into service in its place; build a release that passes.",
        )


def _withdraw(place: Place, desired: Desired, revision: str, log: Log) -> None:
    log(f"{place.name}: revision {revision} is withdrawn; {desired.live or 'nothing'} serves")
    place.wait_gone(place.write(desired, candidate=None), revision)


def _revert(place: Place, promoted: Desired, before: Desired, log: Log, following: str | None) -> None:
    bad, good = str(promoted.live), promoted.previous
    # Without a candidate there was no live revision before: `previous` is only what once served.
    good = good if good and promoted.candidate and place.missing(good) is None else None
    log(f"{place.name}: revision {bad} is withdrawn; {good or 'nothing'} takes over")
    reverted = place.write(
        promoted,
        live=good,
        previous=before.previous if good else promoted.previous,
        # What comes next is wanted at once: a place that nothing is wanted of may close.
        candidate=following if following != good else None,
        unconfirmed=None,
        attempt=before.attempt if good else None,
    )
    if good:
        place.wait_public(reverted)
    place.wait_gone(reverted, bad)


@contextlib.contextmanager
def _on_failure(undo: Callable[[], None]) -> Iterator[None]:
    """Undo whatever the failure is: a check is the caller's code and may raise anything."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            undo()
