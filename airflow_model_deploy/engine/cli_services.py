"""`model-deploy status` and `model-deploy stop`: what a place serves, seen and ended from a command line."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add_commands(commands: Any) -> None:
    """Add `status` and `stop` to the command line's subparsers."""
    for name, function, told in (
        ("status", _status, "print what a host, a Docker engine or a cluster serves"),
        ("stop", _stop, "end a service; what is installed stays"),
    ):
        parser = commands.add_parser(name, help=told)
        parser.add_argument("--name", required=True, help="the service")
        parser.add_argument(
            "--target", choices=("host", "docker", "kubernetes"), default="host", help="where it runs"
        )
        parser.add_argument("--root", help="folder of the host's services, for target host")
        parser.add_argument(
            "--engine", default="", help="URL of the Docker engine; by default DOCKER_HOST, or this machine's"
        )
        parser.add_argument("--namespace", help="of the cluster, for target kubernetes")
        parser.add_argument("--context", help="of the kubeconfig (KUBECONFIG); by default its current one")
        parser.set_defaults(function=function)


def _status(arguments: argparse.Namespace) -> int:
    from airflow_model_deploy.engine.steps.service import service_status

    with ExitStack() as stack:
        found = service_status(arguments.root, arguments.name, **_place(arguments, stack))
    print(json.dumps(found, indent=2, sort_keys=True))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from airflow_model_deploy.engine.steps.service import stop_service

    with ExitStack() as stack:
        stop_service(arguments.root, arguments.name, **_place(arguments, stack))
    return 0


def _place(arguments: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    from airflow_model_deploy.engine.containers import Engine
    from airflow_model_deploy.engine.steps.clusters import cluster_of

    place: dict[str, Any] = {"place": arguments.target, "engine": Engine(url=arguments.engine)}
    if arguments.target == "kubernetes":
        connection = {"context": arguments.context} if arguments.context else {}
        place["cluster"] = stack.enter_context(cluster_of({"cluster": connection}, arguments.namespace))
    return place
