"""`model-deploy`: one step anywhere, without Airflow."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine import cli_images
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 3 failed for good, 2 usage, 75 may succeed later)."""
    # ONNX Runtime reports its use over the network unless told otherwise before it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    for noisy in ("httpx", "httpcore", "onnxscript", "onnx_ir", "torch.onnx", "matplotlib"):
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


def _run(arguments: argparse.Namespace) -> int:
    given: dict[str, Any] = {}
    if arguments.lifeline:
        from airflow_model_deploy.engine.lifeline import hold

        given = hold()
    if not arguments.request and "request" not in given:
        raise InputError(
            "no request was given", wanted="--request FILE", remedy="See `model-deploy run --help`."
        )
    value = _read_json(arguments.request) if arguments.request else given["request"]
    request = StepRequest.from_json(value)
    if request.step != arguments.step:
        raise InputError(
            f"the request in {arguments.request} is for another step",
            found=request.step,
            wanted=arguments.step,
            remedy="Name the request's step.",
        )
    result = run_request(
        request, options=given.get("store_options", {}), connections=given.get("connections", {})
    )
    if not request.result:
        _print(result.to_json())
    if result.status == "succeeded":
        return 0
    return EXIT_FAILED if (result.error or {}).get("permanent", True) else EXIT_TRANSIENT


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

    _print(verify(arguments.uri, arguments.digest))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from airflow_model_deploy.engine.containers import Engine
    from airflow_model_deploy.engine.steps.service import service_status

    _print(
        service_status(
            arguments.root, arguments.name, place=arguments.target, engine=Engine(url=arguments.engine)
        )
    )
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from airflow_model_deploy.engine.containers import Engine
    from airflow_model_deploy.engine.steps.service import stop_service

    stop_service(arguments.root, arguments.name, place=arguments.target, engine=Engine(url=arguments.engine))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-deploy", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run one step from a request file")
    run.add_argument("step", choices=STEP_NAMES, metavar="STEP")
    run.add_argument(
        "--request",
        type=Path,
        help='JSON: {"schema_version": 1, "step", "spec", "inputs": {role: {"uri", "digest"}}, "store": URL}',
    )
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
    check.set_defaults(function=_verify)

    for name, function, told in (
        ("status", _status, "print what a host or a Docker engine serves"),
        ("stop", _stop, "end a service; what is installed stays"),
    ):
        service = commands.add_parser(name, help=told)
        service.add_argument("--name", required=True, help="the service")
        service.add_argument("--target", choices=("host", "docker"), default="host", help="where it runs")
        service.add_argument("--root", help="folder of the host's services, for target host")
        service.add_argument(
            "--engine", default="", help="URL of the Docker engine; by default DOCKER_HOST, or this machine's"
        )
        service.set_defaults(function=function)

    cli_images.add_commands(commands)
    return parser


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the request {path} can't be read",
            found=f"{type(error).__name__}: {error}",
            wanted="a JSON file",
            remedy="See `model-deploy run --help`.",
        ) from error


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, sort_keys=True))


if __name__ == "__main__":
    sys.exit(main())
