"""The contract between a step and whoever runs it: request, result, and what the step's function sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from airflow_model_deploy.engine.artifacts import Checkpoint, Description, Manifest, Reference, Store
from airflow_model_deploy.engine.errors import InputError

SCHEMA_VERSION = 1
CODE = "code"  # the parent by which a torch model names its factory's code
OWN = "own"  # said of a factory that the step's spec names
Status = Literal["succeeded", "failed"]


@dataclass(frozen=True)
class StepRequest:
    """One run of one step, as JSON that can be carried anywhere.

    Args:
        step: the step's name in the registry.
        spec: the step's spec, not yet validated.
        inputs: input artifacts by role.
        store: URL of the artifact store. Credentials never stand here.
        code: the artifact with the user code that the spec refers to; None: found on the Python path.
        result: name of the result file below the store; None: the caller takes the returned result.
    """

    step: str
    spec: dict[str, Any]
    inputs: dict[str, Reference]
    store: str
    code: Reference | None = None
    result: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "step": self.step,
            "spec": self.spec,
            "inputs": {role: reference.to_json() for role, reference in self.inputs.items()},
            "store": self.store,
            "code": self.code.to_json() if self.code else None,
            "result": self.result,
        }

    @classmethod
    def from_json(cls, value: Any) -> StepRequest:
        """Read what `to_json` wrote."""
        try:
            if value["schema_version"] != SCHEMA_VERSION:
                raise InputError(
                    "the request has another schema version",
                    found=value["schema_version"],
                    wanted=SCHEMA_VERSION,
                    remedy="Install the same version of airflow-model-deploy on both sides.",
                )
            return cls(
                step=value["step"],
                spec=dict(value.get("spec") or {}),
                inputs={
                    role: Reference.from_json(item) for role, item in (value.get("inputs") or {}).items()
                },
                store=value["store"],
                code=Reference.from_json(value["code"]) if value.get("code") else None,
                result=value.get("result"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "this is no step request",
                found=f"{type(error).__name__}: {error}",
                wanted='a JSON object with "schema_version", "step", "spec", "inputs" and "store"',
                remedy="See `model-deploy run --help`.",
            ) from error


@dataclass(frozen=True)
class StepResult:
    """What a run of a step left: small enough for XCom, never the model itself.

    Args:
        metrics: figures that the same work gives again.
        measurements: figures of this run on this machine (latencies, seconds to start).
        details: what a reader may want to know besides: decisions and their reasons, a service's URL.
        parent: digest of the artifact that this one was made from.
        cached: the artifact was there already; nothing was computed.
        duration_s: the step's own wall time, without the start of its process.
    """

    step: str
    status: Status
    name: str | None = None
    artifact: Reference | None = None
    parent: str | None = None
    kind: str | None = None
    format: str | None = None
    size_bytes: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    cached: bool = False
    duration_s: float = 0.0
    peak_memory_bytes: int | None = None
    error: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        value["artifact"] = self.artifact.to_json() if self.artifact else None
        return {"schema_version": SCHEMA_VERSION, **value}

    @classmethod
    def from_json(cls, value: Any) -> StepResult:
        """Read what `to_json` wrote."""
        fields = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        if fields.get("artifact"):
            fields["artifact"] = Reference.from_json(fields["artifact"])
        return cls(**fields)


@dataclass(frozen=True)
class StepOutput:
    """What a step's function returns.

    Args:
        folder: the folder to publish, with its description; None for steps that make nothing or pass one on.
        passed_on: an input that is the outcome unchanged.
        main: role of the input that counts as the artifact's parent.
        factory: of a torch model: role of the input whose factory it has, OWN where the spec names it; None: that
            of `main`, or the spec's own without one.
    """

    folder: Path | None = None
    description: Description | None = None
    passed_on: Reference | None = None
    main: str | None = None
    factory: str | None = None
    measurements: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """An input artifact, fetched and verified."""

    reference: Reference
    folder: Path
    manifest: Manifest

    @property
    def format(self) -> str:
        """Return the format that its files are in."""
        return self.manifest.description.format

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.manifest.description.name


class Inputs:
    """The input artifacts of a run, fetched and verified when first asked for.

    A model that needs its author's code to be loaded names that code's artifact among its parents; `use_code`
    makes it importable.
    """

    def __init__(
        self,
        store: Store,
        references: Mapping[str, Reference],
        scratch: Path,
        use_code: Callable[[Reference], None],
    ) -> None:
        self._store, self.references, self._scratch = store, dict(references), scratch
        self._use_code = use_code
        self._fetched: dict[str, Input] = {}

    def __getitem__(self, role: str) -> Input:
        if role not in self._fetched:
            if role not in self.references:
                raise InputError(
                    f"the step was given no input {role!r}",
                    found=sorted(self.references) or "none",
                    remedy="Pass the artifact of the step that makes it.",
                )
            reference = self.references[role]
            folder, manifest = self._store.fetch(reference, self._scratch / "inputs")
            self._fetched[role] = Input(reference, folder, manifest)
            if CODE in manifest.description.parents:
                self._use_code(self._store.reference(manifest.description.parents[CODE]))
        return self._fetched[role]

    def __contains__(self, role: str) -> bool:
        return role in self.references

    def read_file(self, role: str, path: str) -> bytes:
        """Return one file of an input, verified, without fetching the others."""
        return self._store.read_file(self.references[role], path)


@dataclass(frozen=True)
class StepContext:
    """What a step's function may use besides its spec and inputs.

    Args:
        store: where artifacts are; functions publish through their StepOutput, not here.
        scratch: a folder of this run's own, removed afterwards.
        resolve: imports a callable of the user's by its import path.
        run: runs another step on artifacts and returns its result (for shared intermediate artifacts).
        pinned: pinned(name, parts, compute) returns the choice made before for these parts on this kind of
            CPU, or computes it and stores it before returning it.
        checkpoint: how far a killed attempt at the same work got; gone once the result is published.
        connections: what the step may reach, with credentials: never logged, stored or put into a result.
    """

    store: Store
    scratch: Path
    resolve: Callable[[str], Callable[..., Any]]
    run: Callable[[str, dict[str, Any], dict[str, Reference]], StepResult]
    pinned: Callable[[str, dict[str, Any], Callable[[], dict[str, Any]]], dict[str, Any]]
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    connections: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def folder(self, name: str) -> Path:
        """Return a new folder in the scratch place."""
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=False)
        return path


@dataclass(frozen=True)
class Step:
    """A step as the registry knows it.

    Args:
        function: function(spec, inputs, context) -> StepOutput.
        inputs: roles of the artifacts that it needs; `optional` ones may be absent.
        compared: those of them that are only compared with: no part of what the artifact was made from.
        pure: its result depends on nothing but its key, so it is reused.
        measured: its outcome depends on the kind of CPU, so that is part of its key.
        version: raised when the step's own code changes its outcome.
        libraries: distributions whose versions are part of its key.
        mark: what else decides its outcome, read off the spec: part of the key; None where it can't be told, so
            that nothing is reused.
    """

    name: str
    summary: str
    spec: type[Any]
    function: Callable[[Any, Inputs, StepContext], StepOutput]
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    pure: bool = True
    measured: bool = False
    version: int = 1
    libraries: tuple[str, ...] = ()
    mark: Callable[[Any], str | None] | None = None


def as_hit(result: StepResult, *, duration_s: float) -> StepResult:
    """Return a stored result as that of a run which found it."""
    return replace(result, cached=True, duration_s=duration_s, peak_memory_bytes=None)
