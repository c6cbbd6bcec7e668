"""The key under which a cluster keeps the end of one piece of work; names it, and knows nothing of the work."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# A Dag, a task and a run may have names of 250 characters each; a step takes a key of up to 512.
_LONGEST, _READABLE = 200, 130


def attempt_of(context: Mapping[str, Any], *, each_try: bool) -> str:
    """Name one execution of a task, the same in every process; with `each_try` another one for each try."""
    task = context["ti"]
    parts = [task.dag_id, task.run_id, task.task_id, str(task.map_index)]
    key = "/".join([*parts, str(task.try_number)] if each_try else parts)
    if len(key) <= _LONGEST:
        return key
    return f"{key[:_READABLE]}~{hashlib.sha256(key.encode()).hexdigest()}"
