"""Data sources: how a user's data is loaded, and what tells one state of it from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_model_deploy.engine.artifacts import digest_of, file_sha256
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.usercode import UserFunction

if TYPE_CHECKING:
    import numpy as np  # noqa: TC004 - pydantic never meets the classes that name it

    Targets = np.ndarray | dict[str, np.ndarray]

Resolve = Callable[[str], Callable[..., Any]]


@dataclass(frozen=True)
class DataSource:
    """Where samples come from.

    A step's result is reused only while its data's fingerprint is the same. Any of `files`, `version` and
    `fingerprint` makes one; a source without is never reused.

    Args:
        loader: called as loader(split, **options) with split "train" or "test"; returns (inputs, targets): inputs
            maps each input's name (the forward argument's) to an array with the samples along dimension 0;
            targets is an array with as many samples, a dict of them (for a model with several outputs, by the
            outputs' names where "accuracy", "mae" or "rmse" is to score them), or None.
        files: local files whose content is part of the fingerprint.
        version: the author's own name for this state of the data (a date, a table's version).
        fingerprint: called with the loader's options, returns a str that changes when the data does.
    """

    loader: UserFunction
    files: tuple[str, ...] = ()
    version: str | None = None
    fingerprint: UserFunction | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Dataset:
    """Samples in memory: inputs by name and targets, all with the samples along dimension 0."""

    inputs: dict[str, np.ndarray]
    targets: Targets | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def head(self, count: int) -> Dataset:
        """Return the first `count` samples."""
        return self.take(slice(count))

    def take(self, places: slice | np.ndarray) -> Dataset:
        """Return the samples at some places."""
        targets = self.targets
        if isinstance(targets, dict):
            targets = {name: array[places] for name, array in targets.items()}
        elif targets is not None:
            targets = targets[places]
        return Dataset({name: array[places] for name, array in self.inputs.items()}, targets)

    def spread(self, count: int) -> Dataset:
        """Return `count` samples at even distances, so that sorted data is seen whole."""
        import numpy as np

        return self.take(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))


def fingerprint(source: DataSource, resolve: Resolve) -> str | None:
    """Return what identifies the data's present state, or None where the author gave no means to tell."""
    parts: dict[str, Any] = {}
    if source.version is not None:
        parts["version"] = source.version
    if source.files:
        parts["files"] = [_file_digest(name) for name in source.files]
    if source.fingerprint is not None:
        value = resolve(source.fingerprint.path)(**source.loader.options, **source.fingerprint.options)
        if not isinstance(value, str) or not value:
            raise InputError(
                f"the fingerprint function {source.fingerprint.path} gave no fingerprint",
                found=repr(value)[:100],
                wanted="a non-empty str",
                remedy="Return a digest or a version of the data.",
            )
        parts["function"] = value
    return digest_of(parts) if parts else None


def load(source: DataSource, split: str, resolve: Resolve) -> Dataset:
    """Load one split and check its form."""
    import numpy as np

    loader = source.loader.path
    value = resolve(loader)(split, **source.loader.options)
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], dict) or not value[0]:
        raise InputError(
            f"the data loader {loader} gave something else",
            found=f"{type(value).__name__} for split {split!r}",
            wanted="(inputs, targets) with inputs a non-empty dict of arrays",
            remedy="Return ({'name of the input': array}, targets).",
        )
    inputs = {str(name): np.ascontiguousarray(array) for name, array in value[0].items()}
    targets = _targets(value[1])
    arrays = dict(inputs)
    if isinstance(targets, dict):
        arrays |= {f"targets[{name!r}]": array for name, array in targets.items()}
    elif targets is not None:
        arrays["targets"] = targets
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise InputError(
            f"the arrays of {loader} for split {split!r} don't belong together",
            found=f"samples {lengths}",
            wanted="the same number, at least 1, along dimension 0",
            remedy="Correct the loader.",
        )
    return Dataset(inputs=inputs, targets=targets)


def _targets(value: Any) -> Targets | None:
    import numpy as np

    if value is None:
        return None
    if isinstance(value, dict):
        return {str(name): np.asarray(array) for name, array in value.items()}
    return np.asarray(value)


def _file_digest(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"the data file {name} is not there",
            wanted="a file on the machine where the step runs",
            remedy="Correct DataSource.files, or put the file there.",
        )
    return file_sha256(path)
