"""`model-deploy image`: builds our images from a command line, with docker's own credentials."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.cli_credentials import docker_credentials

if TYPE_CHECKING:
    import argparse

    from airflow_model_deploy.engine.packaging.images import Builder, ImageSpec

_LAYOUT = "oci-layout:"
_SUMMARIES = {
    "runtime": "the server and what it imports, no model",
    "model": "a servable on a runtime image",
    "driver": "the engine for acting steps, without torch",
    "worker": "the engine with what computing steps import",
}


def add_commands(commands: Any) -> None:
    """Add `image` to the command line's subparsers."""
    image = commands.add_parser("image", help="build an image and push it, or write it as an OCI layout")
    kinds = image.add_subparsers(required=True, metavar="KIND")
    for kind, summary in _SUMMARIES.items():
        parser = kinds.add_parser(kind, help=summary, description=f"{summary}. Prints JSON.")
        parser.add_argument(
            "--base",
            required=True,
            help="for a model: the runtime image. HOST/REPOSITORY:TAG, with @sha256:.. or oci-layout:/path[:TAG]",
        )
        parser.add_argument(
            "--destination", required=True, help="HOST/REPOSITORY to push to, or oci-layout:/path; no tag"
        )
        parser.add_argument(
            "--backend",
            choices=("auto", "docker", "oci"),
            default="auto",
            help="auto: docker where an engine answers and can do it, else oci, which needs none",
        )
        parser.add_argument("--engine", default="", help="URL of the Docker engine; by default DOCKER_HOST")
        _add_content(parser, kind)
        parser.set_defaults(function=_image, kind=kind)


def _add_content(parser: argparse.ArgumentParser, kind: str) -> None:
    if kind == "model":
        parser.add_argument("--servable", type=Path, required=True, help="folder with servable.json")
        return
    parser.add_argument("--python", help="the base's Python, like 3.11; by default this interpreter's")
    parser.add_argument(
        "--architecture", choices=("amd64", "arm64"), help="by default the engine's or this machine's"
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        help="where packages are gathered and kept for the next build; by default below ~/.cache",
    )
    if kind in ("driver", "worker"):
        parser.add_argument(
            "--also", action="append", default=[], metavar="NAME", help="one more package, like s3fs; repeat"
        )
    if kind == "worker":
        parser.add_argument(
            "--extra",
            action="append",
            metavar="EXTRA",
            help="of this distribution, instead of engine; repeat",
        )


def _image(arguments: argparse.Namespace) -> int:
    builder = _builder(arguments)
    if builder.name == "docker" and getattr(arguments, "architecture", "") is None:
        from airflow_model_deploy.engine.containers import Engine, engine_architecture

        arguments.architecture = engine_architecture(Engine(url=arguments.engine))
    built = builder.build(_spec(arguments), arguments.destination, log=_log)
    print(json.dumps(asdict(built), indent=2, sort_keys=True))
    return 0


def _spec(arguments: argparse.Namespace) -> ImageSpec:
    from airflow_model_deploy.engine.packaging.images import contents

    if arguments.kind == "model":
        return contents.model_spec(arguments.base, arguments.servable)
    scratch = arguments.scratch or contents.package_cache()
    target = {"python": arguments.python, "architecture": arguments.architecture}
    if arguments.kind == "runtime":
        return contents.runtime_spec(arguments.base, scratch=scratch, **target)
    if arguments.kind == "driver":
        return contents.driver_spec(arguments.base, scratch, also=arguments.also, **target)
    extras = arguments.extra or ["engine"]
    return contents.worker_spec(arguments.base, scratch, extras, also=arguments.also, **target)


def _builder(arguments: argparse.Namespace) -> Builder:
    from airflow_model_deploy.engine.containers import Engine, answers

    ends = (arguments.base, arguments.destination)
    # An engine reads no layouts and builds for its own processor.
    architecture = getattr(arguments, "architecture", None)
    layouts = any(end.startswith(_LAYOUT) for end in ends)
    credentials = docker_credentials(tuple(end for end in ends if not end.startswith(_LAYOUT)))
    engine = Engine(url=arguments.engine)
    backend = arguments.backend
    if backend == "auto":
        backend = "docker" if not layouts and architecture is None and answers(engine) else "oci"
    if backend == "docker":
        from airflow_model_deploy.engine.packaging.images import DockerBuilder

        return DockerBuilder(engine, credentials)
    from airflow_model_deploy.engine.packaging.images import OciBuilder

    return OciBuilder(credentials)


def _log(line: str) -> None:
    print(line, file=sys.stderr)
