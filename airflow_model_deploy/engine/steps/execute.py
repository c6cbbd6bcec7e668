"""Runs one step: validates, looks for an earlier result, computes, publishes, writes the result down."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import (
    Checkpoint,
    Description,
    Reference,
    StepRecord,
    Store,
    digest_of,
    step_key,
)
from airflow_model_deploy.engine.errors import InputError, IntegrityError, ModelDeployError, UnavailableError
from airflow_model_deploy.engine.models import (
    DataSource,
    collect_functions,
    cpu_fingerprint,
    data_fingerprint,
    locate,
    resolve,
)
from airflow_model_deploy.engine.steps.base import (
    CODE,
    OWN,
    Inputs,
    Step,
    StepContext,
    StepOutput,
    StepRequest,
    StepResult,
    as_hit,
)
from airflow_model_deploy.engine.steps.environment import versions
from airflow_model_deploy.engine.steps.registry import get_step
from airflow_model_deploy.engine.steps.spec import parse_spec, spec_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

# What the same code does again on the same input: no retry can mend these.
_PERMANENT = (
    ImportError,
    TypeError,
    AttributeError,
    NameError,
    SyntaxError,
    KeyError,
    IndexError,
    ValueError,
)


def run_request(
    request: StepRequest,
    *,
    options: Mapping[str, Any] | None = None,
    connections: Mapping[str, Any] | None = None,
) -> StepResult:
    """Run a request and return its result, failed ones included; write the result file if one is asked for.

    Args:
        request: what to run.
        options: credentials of the store; kept in memory only.
        connections: of the engine and the registries that the step may use; kept in memory only.
    """
    start = time.monotonic()
    try:
        result = execute(request, options=options, connections=connections)
    except ModelDeployError as error:
        logger.error("%s", error)  # noqa: TRY400 - its message says all; a trace would bury it
        result = _failed(request, error, permanent=error.permanent, start=start)
    except Exception as error:
        # The edge of the process: whatever user code raised has to reach the runner as a result.
        logger.exception("step %s failed", request.step)
        told = _disk_full(error) or error
        result = _failed(request, told, permanent=isinstance(told, _PERMANENT), start=start)
    if request.result:
        Store(request.store, options).write_json(request.result, result.to_json())
    return result


def execute(
    request: StepRequest,
    *,
    options: Mapping[str, Any] | None = None,
    connections: Mapping[str, Any] | None = None,
) -> StepResult:
    """Run a request; errors are raised."""
    step = get_step(request.step)
    spec = parse_spec(step.spec, request.spec, step=step.name)
    _check_inputs(step, request.inputs)
    store = Store(request.store, options)
    scratch = Path(tempfile.mkdtemp(prefix=f"model-deploy-{step.name}-"))
    try:
        code = request.code or publish_code(store, spec)
        if code is not None:
            _use_code(store, code, scratch, first=True)
        return _run(step, spec, request.inputs, store, code, scratch, connections or {})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish_code(store: Store, spec: Any) -> Reference | None:
    """Publish the source behind a spec's import paths; None where it refers to none outside the installed."""
    functions = list(collect_functions(spec))
    code = locate(functions)
    if not code.files and not code.installed:
        return None
    with tempfile.TemporaryDirectory(prefix="model-deploy-code-") as name:
        folder = Path(name)
        for relative, source in code.files.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        reference, _ = store.publish(
            folder,
            Description(
                name="code", kind="code", format="python", metrics={"installed": list(code.installed)}
            ),
        )
    return reference


def _use_code(store: Store, code: Reference, scratch: Path, *, first: bool) -> None:
    folder, _ = store.fetch(code, scratch / "code")
    sys.dont_write_bytecode = True  # the folder is an artifact: nothing may be added to it
    if str(folder) not in sys.path:
        sys.path.insert(0 if first else len(sys.path), str(folder))


def _run(
    step: Step,
    spec: Any,
    references: dict[str, Reference],
    store: Store,
    code: Reference | None,
    scratch: Path,
    connections: Mapping[str, Any],
) -> StepResult:
    start = time.monotonic()
    # The step's own code comes first: a model's code serves where the step's doesn't have the module.
    inputs = Inputs(store, references, scratch, lambda other: _use_code(store, other, scratch, first=False))
    tools = versions(step.libraries + _installed(store, code))
    key = _key(step, spec, references, code, tools) if step.pure else None
    place = f"{step.name}/{key.removeprefix('sha256:')}" if key else None
    cache_name = f"cache/{place}.json" if place else None
    checkpoint = Checkpoint(store, place, scratch=scratch)
    if cache_name and (hit := _hit(store, cache_name)):
        checkpoint.remove()  # of an attempt that was killed between its publication and its end
        logger.info("%s: found %s", step.name, hit.artifact.digest if hit.artifact else "an earlier result")
        return as_hit(hit, duration_s=time.monotonic() - start)
    context = StepContext(
        store=store,
        scratch=scratch,
        resolve=resolve,
        run=_nested(store, code),
        pinned=_pinned(store, tools),
        checkpoint=checkpoint,
        connections=connections,
    )
    output = step.function(spec, inputs, context)
    result = _publish(step, spec, inputs, output, store, tools, code)
    result = replace(result, key=key, duration_s=time.monotonic() - start, peak_memory_bytes=_peak_memory())
    if cache_name:
        store.write_json(cache_name, result.to_json())
        checkpoint.remove()
    return result


def _key(
    step: Step, spec: Any, inputs: dict[str, Reference], code: Reference | None, tools: dict[str, str]
) -> str | None:
    data: dict[str, str] = {}
    for name in spec.__dataclass_fields__:
        source = getattr(spec, name)
        if isinstance(source, DataSource):
            mark = data_fingerprint(source, resolve)
            if mark is None:
                logger.info(
                    "%s: the data source %r has no fingerprint, so no result is reused", step.name, name
                )
                return None
            data[name] = mark
    if step.mark is not None:
        other = step.mark(spec)
        if other is None:
            logger.info("%s: what it depends on can change unseen, so no result is reused", step.name)
            return None
        data["source"] = other
    if step.measured:
        data["cpu"] = digest_of(cpu_fingerprint().to_json())
    return step_key(
        step=step.name,
        version=step.version,
        spec=spec_json(spec),
        inputs={role: reference.digest for role, reference in inputs.items()},
        data=data,
        code=code.digest if code else None,
        libraries=tools,
    )


def _hit(store: Store, name: str) -> StepResult | None:
    value = store.read_json(name)
    if value is None:
        return None
    try:
        result = StepResult.from_json(value)
        if result.status != "succeeded" or (result.artifact and not store.verifies(result.artifact)):
            return None
    except (ModelDeployError, TypeError, KeyError):
        return None  # a damaged entry is as good as none: the step runs again and replaces it
    return result


def _publish(
    step: Step,
    spec: Any,
    inputs: Inputs,
    output: StepOutput,
    store: Store,
    tools: dict[str, str],
    code: Reference | None,
) -> StepResult:
    parent = inputs.references[output.main].digest if output.main else None
    result = StepResult(
        step=step.name,
        status="succeeded",
        parent=parent,
        measurements=output.measurements,
        details=output.details,
        metrics=output.metrics,
    )
    if output.passed_on:
        manifest = store.manifest(output.passed_on)
        reference = output.passed_on
    elif output.folder is not None and output.description is not None:
        description = replace(
            output.description,
            parents={
                role: reference.digest
                for role, reference in sorted(inputs.references.items())
                if role not in step.compared
            }
            | output.description.parents
            | _factory_code(inputs, output, code),
            step=StepRecord(step.name, step.version, spec_json(spec), tools),
        )
        reference, manifest = store.publish(output.folder, description)
    else:
        return result
    return replace(
        result,
        artifact=reference,
        name=manifest.description.name,
        kind=manifest.description.kind,
        format=manifest.description.format,
        size_bytes=manifest.size_bytes,
        metrics=manifest.description.metrics | output.metrics,
    )


def _factory_code(inputs: Inputs, output: StepOutput, code: Reference | None) -> dict[str, str]:
    """Return the parent by which a torch model names its factory's code: that of its source, or the step's own."""
    if output.description is None or output.description.format != "torch":
        return {}
    source = None if output.factory == OWN else output.factory or output.main
    if source:
        parents = inputs[source].manifest.description.parents
        return {CODE: parents[CODE]} if CODE in parents else {}
    return {CODE: code.digest} if code else {}


def _nested(
    store: Store, code: Reference | None
) -> Callable[[str, dict[str, Any], dict[str, Reference]], StepResult]:
    def run(name: str, spec: dict[str, Any], references: dict[str, Reference]) -> StepResult:
        step = get_step(name)
        parsed = parse_spec(step.spec, spec, step=name)
        scratch = Path(tempfile.mkdtemp(prefix=f"model-deploy-{name}-"))
        try:
            # A step that refers to no code of its own is the same whichever step asks for it.
            own = code if any(collect_functions(parsed)) else None
            return _run(step, parsed, references, store, own, scratch, {})
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    return run


def _pinned(
    store: Store, tools: dict[str, str]
) -> Callable[[str, dict[str, Any], Callable[[], dict[str, Any]]], dict[str, Any]]:
    def pinned(name: str, parts: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        key = digest_of({"name": name, "parts": parts, "tools": tools, "cpu": cpu_fingerprint().to_json()})
        place = f"choices/{name}-{key.removeprefix('sha256:')}.json"
        value = store.read_json(place)
        if isinstance(value, dict):
            logger.info("%s: using the choice pinned in %s", name, place)
            return value
        value = compute()
        store.write_json(place, value)
        return value

    return pinned


def _installed(store: Store, code: Reference | None) -> tuple[str, ...]:
    return tuple(store.manifest(code).description.metrics.get("installed", ())) if code else ()


def _check_inputs(step: Step, references: Mapping[str, Reference]) -> None:
    missing = [role for role in step.inputs if role not in references]
    unknown = [role for role in references if role not in step.inputs + step.optional]
    if missing or unknown:
        raise InputError(
            f"step {step.name!r} was given other inputs than it takes",
            found=sorted(references) or "none",
            wanted=", ".join(step.inputs + tuple(f"{role} (optional)" for role in step.optional)) or "none",
            remedy="Pass each artifact under its role.",
        )


def _failed(request: StepRequest, error: Exception, *, permanent: bool, start: float) -> StepResult:
    return StepResult(
        step=request.step,
        status="failed",
        duration_s=time.monotonic() - start,
        error={
            "type": type(error).__name__,
            "message": str(error) or repr(error),
            "permanent": permanent and not isinstance(error, OSError),
            "integrity": isinstance(error, IntegrityError),
            "trace": traceback.format_exc(limit=-6) if not isinstance(error, ModelDeployError) else None,
        },
    )


def _disk_full(error: Exception) -> UnavailableError | None:
    """Name the place when a step runs out of space for what it is making; safetensors has no errno to tell it by."""
    code = getattr(error, "errno", None)
    if code not in (errno.ENOSPC, errno.EDQUOT) and os.strerror(errno.ENOSPC) not in str(error):
        return None
    folder = tempfile.gettempdir()
    return UnavailableError(
        f"the disk of the step's temporary folder {folder} is full",
        found=f"{shutil.disk_usage(folder).free} bytes free; {error}",
        wanted="room for the model, twice over",
        remedy="Free space there, or point TMPDIR to a larger disk; nothing was published. Then run the step again.",
    )


def _peak_memory() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
