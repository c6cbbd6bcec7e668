"""How a cluster is reached and by whom; what is secret in it is shown nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from kubernetes.client import Configuration

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_REMEDY = (
    "Name a kubeconfig (KUBECONFIG, or the connection's), or run inside the cluster with a service account"
)


@dataclass(frozen=True)
class Connection:
    """A cluster's address and our credentials there.

    Args:
        kubeconfig: a kubeconfig's content; goes before `path`.
        path: a kubeconfig file; None: KUBECONFIG, else ~/.kube/config.
        context: one of the kubeconfig's; None: its current one.
        in_cluster: use the service account that is mounted into this pod. None: where one is mounted and neither
            `kubeconfig` nor `path` is given.
    """

    kubeconfig: dict[str, Any] | None = field(default=None, repr=False)
    path: str | None = None
    context: str | None = None
    in_cluster: bool | None = None

    @property
    def inside(self) -> bool:
        """Whether the mounted service account is used."""
        if self.in_cluster is not None:
            return self.in_cluster
        return self.kubeconfig is None and self.path is None and _TOKEN.is_file()


def configure(connection: Connection) -> Configuration:
    """What the client library makes of a connection; runs no request, but may run a kubeconfig's own program.

    Raises:
        InputError: kubernetes isn't installed here, or the connection can't be used.
    """
    try:
        import yaml  # type: ignore[import-untyped]
        from kubernetes import config
        from kubernetes.client import Configuration
    except ImportError as e:
        raise InputError(
            "the Kubernetes client library", found="not installed here", remedy="Run: pip install kubernetes"
        ) from e
    configuration = Configuration()
    context = connection.context
    try:
        if connection.inside:
            config.load_incluster_config(client_configuration=configuration)
        elif connection.kubeconfig is not None:
            config.load_kube_config_from_dict(
                connection.kubeconfig, context=context, client_configuration=configuration
            )
        else:
            config.load_kube_config(connection.path, context=context, client_configuration=configuration)
    except config.ConfigException as e:
        raise InputError("the way to the cluster", found=e, remedy=_REMEDY) from e
    except yaml.YAMLError as e:
        # Not the library's words: they may quote the line, and with it a token.
        raise InputError("the kubeconfig", found="something that isn't YAML", remedy=_REMEDY) from e
    except OSError as e:
        raise InputError("the way to the cluster", found=e, remedy=_REMEDY) from e
    return configuration
