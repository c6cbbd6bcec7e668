"""What the objects of a selector look like, kept up to date: one list, then a watch that is taken up when it breaks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import ExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster

_WINDOW_S = 300.0  # what lies between us and the server may not let a connection live longer
_SHORT_S, _PAUSE_S = 1.0, 2.0


def follow(
    cluster: Cluster,
    kind: str,
    selector: Mapping[str, str],
    *,
    until: float,
    name: str | None = None,
    window: Callable[[], float] = lambda: _WINDOW_S,
) -> Iterator[tuple[dict[str, Object], bool]]:
    """Yield the objects by name, at first and after every change, until `until`.

    A watch that ends early (a server that restarted, a connection that was cut) goes on from the last version
    seen; where the server has forgotten that, the objects are listed again.

    Args:
        cluster: where.
        kind: of the objects.
        selector: labels they have.
        until: on the monotonic clock.
        name: the one object's name.
        window: asked before each watch how long it may last.

    Yields:
        The objects, and whether that is news; False when a window has passed.
    """
    version, seen = "", dict[str, "Object"]()
    while True:
        if not version:
            found, version = cluster.listing(kind, selector, name=name)
            seen = {str(obj["metadata"]["name"]): obj for obj in found}
            yield seen, True
        left = until - time.monotonic()
        if left <= 0:
            return
        began, asked = time.monotonic(), min(left, _WINDOW_S, window())
        news = False
        try:
            for what, obj in cluster.watch(kind, selector, version, asked, name=name):
                version = str(obj["metadata"]["resourceVersion"])
                if what != "BOOKMARK":
                    news = True
                    _note(seen, what, obj)
                    yield seen, True
        except ExpiredError:
            version = ""
        if not news and time.monotonic() - began < min(asked, _SHORT_S):
            # Somebody between us cuts watches off: then asking now and then has to do.
            version = ""
            time.sleep(max(0.0, min(_PAUSE_S, until - time.monotonic())))
        yield seen, False


def _note(seen: dict[str, Object], what: str, obj: Object) -> None:
    name = str(obj["metadata"]["name"])
    if what == "DELETED":
        seen.pop(name, None)
    else:
        seen[name] = obj
