"""Makes golden sets from samples, and writes and reads golden.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.probing.golden import (
    KINDS,
    SCHEMA_VERSION,
    GoldenRequest,
    GoldenSet,
    Tolerance,
)
from airflow_model_deploy.engine.probing.protocol import from_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]


def make_golden(
    inputs: Arrays,
    original: Arrays,
    built: Arrays,
    *,
    original_tolerance: Mapping[str, Tolerance],
    built_tolerance: Mapping[str, Tolerance],
    rows_per_request: int = 1,
) -> GoldenSet:
    """Cut samples (dim 0 of every array) into requests of `rows_per_request` rows.

    Whether the built answers keep the promise to the original ones isn't judged here:
    `compare(golden, {r.id: r.built for r in golden.requests}, against="original")` does.

    Raises:
        InputError: the arrays differ in their number of samples, or an answer isn't finite.
    """
    rows = {len(a) for arrays in (inputs, original, built) for a in arrays.values()}
    if len(rows) != 1 or rows == {0} or rows_per_request < 1:
        raise InputError(
            "golden samples",
            found=f"{sorted(rows)} rows, {rows_per_request} a request",
            wanted="the same number of rows in every input and answer, one a request or more",
        )
    starts = range(0, rows.pop(), rows_per_request)
    requests = tuple(
        GoldenRequest(
            f"golden-{i:03}", *(_rows(a, start, rows_per_request) for a in (inputs, original, built))
        )
        for i, start in enumerate(starts)
    )
    golden = GoldenSet(requests, {"original": original_tolerance, "built": built_tolerance})
    golden.to_json()  # a NaN or a type that JSON can't carry is refused here, not when the file is written
    return golden


def write_golden(golden: GoldenSet, path: Path) -> None:
    """Write golden.json: the same set gives the same bytes."""
    text = json.dumps(golden.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def load_golden(path: Path) -> GoldenSet:
    """Read and check golden.json.

    Raises:
        InputError: the file is missing, isn't JSON or breaks the format.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{path}: schema_version", found=value["schema_version"], wanted=SCHEMA_VERSION)
        requests = tuple(
            GoldenRequest(str(r["id"]), *(_arrays(r[k]) for k in ("inputs", *KINDS)))
            for r in value["requests"]
        )
        tolerance = {
            kind: {output: Tolerance(**t) for output, t in value["tolerance"][kind].items()} for kind in KINDS
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"golden requests {path} can't be read", found=f"{type(e).__name__}: {e}") from e
    return GoldenSet(requests, tolerance)


def _rows(arrays: Arrays, start: int, count: int) -> dict[str, np.ndarray[Any, Any]]:
    return {name: array[start : start + count] for name, array in arrays.items()}


def _arrays(tensors: list[dict[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    return {str(t["name"]): from_tensor(t) for t in tensors}
