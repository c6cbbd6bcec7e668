"""`model-deploy`: one step anywhere, without Airflow."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine import cli_images, cli_services
from airflow_model_deploy.engine.errors import InputError, ModelDeployError
from airflow_model_deploy.engine.steps import (
    STEP_NAMES,
    StepRequest,
    get_step,
    requirements,
    run_request,
    spec_schema,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# 1 is what Python ends with after an error that nobody foresaw: it may pass, so it says nothing for good.
EXIT_FAILED, EXIT_USAGE, EXIT_TRANSIENT = 3, 2, 75
_NOISY = (
    "httpx",
    "httpcore",
    "onnxscript",
    "onnx_ir",
    "torch.onnx",
    "matplotlib",
    "botocore",
    "aiobotocore",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 3 failed for good, 2 usage, 75 may succeed later)."""
    if os.getpid() == 1:
        # In a container of its own: the kernel drops a signal that process 1 has no handler for.
        signal.signal(signal.SIGTERM, _end)
    # ONNX Runtime reports its use over the network unless told otherwise before it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        code: int = arguments.function(arguments)
    except ModelDeployError as error:
        print(f"model-deploy: {error}", file=sys.stderr)
        return EXIT_FAILED if error.permanent else EXIT_TRANSIENT
    except OSError as error:
        print(f"model-deploy: {error}", file=sys.stderr)
        return EXIT_TRANSIENT
    return code


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


def _run(arguments: argparse.Namespace) -> int:
    given: dict[str, Any] = {}
    if arguments.lifeline:
        from airflow_model_deploy.engine.lifeline import hold

        given = hold()
    request = StepRequest.from_json(_request(arguments, given))
    if request.step != arguments.step:
        raise InputError(
            f"the request in {arguments.request or 'the arguments'} is for another step",
            found=request.step,
            wanted=arguments.step,
            remedy="Name the request's step.",
        )
    options = {**given.get("store_options", {}), **_store_options(arguments.store_options)}
    result = run_request(request, options=options, connections=given.get("connections", {}))
    if not request.result:
        _print(result.to_json())
    if result.status == "succeeded":
        return 0
    return EXIT_FAILED if (result.error or {}).get("permanent", True) else EXIT_TRANSIENT


def _request(arguments: argparse.Namespace, given: dict[str, Any]) -> Any:
    if arguments.request:
        return _read_json(arguments.request)
    if arguments.json is not None:
        return _parse_json(arguments.json, "the request in --json")
    if "request" not in given:
        raise InputError(
            "no request was given",
            wanted="--request FILE or --json JSON",
            remedy="See `model-deploy run --help`.",
        )
    return given["request"]


def _store_options(path: Path | None) -> dict[str, Any]:
    found = {} if path is None else _read_json(path, "the store options")
    if not isinstance(found, dict):
        raise InputError(
            f"the store options {path}", found=type(found).__name__, wanted="a JSON object"
        )  # not what it says: it may hold credentials
    return found


def _steps(arguments: argparse.Namespace) -> int:
    names = [arguments.step] if arguments.step else list(STEP_NAMES)
    steps = [get_step(name) for name in names]
    _print(
        {
            step.name: {
                "summary": step.summary,
                "pure": step.pure,
                "inputs": list(step.inputs),
                "optional_inputs": list(step.optional),
                "spec": spec_schema(step.spec),
            }
            for step in steps
        }
    )
    return 0


def _requirements(arguments: argparse.Namespace) -> int:
    print("\n".join(requirements(arguments.step)))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from airflow_model_deploy.engine.steps.verify import verify

    _print(verify(arguments.uri, arguments.digest, _store_options(arguments.store_options)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-deploy", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run one step from a request file")
    run.add_argument("step", choices=STEP_NAMES, metavar="STEP")
    source = run.add_mutually_exclusive_group()
    source.add_argument(
        "--request",
        type=Path,
        help='JSON: {"schema_version": 1, "step", "spec", "inputs": {role: {"uri", "digest"}}, "store": URL}',
    )
    source.add_argument("--json", metavar="JSON", help="the request itself; it holds no secrets")
    _add_store_options(run)
    run.add_argument(
        "--lifeline",
        action="store_true",
        help="read a line of JSON from standard input (store_options, connections, and the request where no file"
        " is named), then end when standard input ends",
    )
    run.set_defaults(function=_run)

    steps = commands.add_parser("steps", help="list the steps with the JSON schemas of their specs")
    steps.add_argument("step", nargs="?", choices=STEP_NAMES, metavar="STEP")
    steps.set_defaults(function=_steps)

    needs = commands.add_parser("requirements", help="print what a step needs installed, for pip")
    needs.add_argument("step", choices=STEP_NAMES, metavar="STEP")
    needs.set_defaults(function=_requirements)

    check = commands.add_parser("verify", help="check an artifact and all it was made from, file by file")
    check.add_argument("uri", help="the artifact's folder in its store")
    check.add_argument("--digest", help="the digest it must have; otherwise the one in its uri")
    _add_store_options(check)
    check.set_defaults(function=_verify)

    cli_services.add_commands(commands)
    cli_images.add_commands(commands)
    return parser


def _add_store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store-options",
        type=Path,
        metavar="FILE",
        help='a JSON object for the store\'s file system, such as {"key", "secret", "endpoint_url"} for s3://',
    )


def _read_json(path: Path, thing: str = "the request") -> Any:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(f"{thing} {path}", error) from error
    return _parse_json(content, f"{thing} {path}")


def _parse_json(text: str, thing: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _unreadable(thing, error) from error


def _unreadable(thing: str, error: Exception) -> InputError:
    return InputError(
        f"{thing} can't be read",
        found=f"{type(error).__name__}: {error}",
        wanted="JSON",
        remedy="See `model-deploy run --help`.",
    )


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, sort_keys=True))


if __name__ == "__main__":
    sys.exit(main())
