"""The runtime's options in a servable: their names, defaults and allowed values."""

from __future__ import annotations

from typing import Any

from airflow_model_deploy.engine.errors import InputError

LEVELS = ("disable", "basic", "extended", "layout", "all")

_DEFAULTS: dict[str, Any] = {
    "intra_op_threads": 1,
    "inter_op_threads": 1,
    "graph_optimization_level": "all",
    "disabled_optimizers": [],
    "allow_spinning": False,
    "denormals_as_zero": True,
}


def checked_session(session: dict[str, Any]) -> dict[str, Any]:
    """Fill in defaults and refuse what the server wouldn't understand."""
    unknown = sorted(set(session) - set(_DEFAULTS))
    if unknown:
        raise InputError("session options", found=unknown, wanted=sorted(_DEFAULTS))
    full = {**_DEFAULTS, **session}
    for key in ("intra_op_threads", "inter_op_threads"):
        if type(full[key]) is not int or full[key] < 1:
            raise InputError(f"session option {key}", found=full[key], wanted="a whole number, 1 or more")
    if full["graph_optimization_level"] not in LEVELS:
        raise InputError(
            "session option graph_optimization_level",
            found=full["graph_optimization_level"],
            wanted=LEVELS,
        )
    names = full["disabled_optimizers"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError("session option disabled_optimizers", found=names, wanted="a list of names")
    for key in ("allow_spinning", "denormals_as_zero"):
        if type(full[key]) is not bool:
            raise InputError(f"session option {key}", found=full[key], wanted="true or false")
    return full
