from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Connection
from tests.engine.deployment.cluster.models import models  # noqa: F401 - a fixture
from tests.engine.deployment.cluster.namespaces import fresh_namespace, kubectl
from tests.engine.deployment.cluster.rollouts import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def kubeconfig() -> dict[str, Any]:
    """The content of the file that KUBECONFIG names."""
    return dict(yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text()))


@pytest.fixture
def namespace() -> Iterator[str]:
    """A fresh namespace; deleted at the end, without waiting until it's gone."""
    with fresh_namespace() as name:
        yield name


@pytest.fixture
def cluster(namespace: str) -> Iterator[Cluster]:
    """The fresh namespace, with KUBECONFIG's credentials."""
    with Cluster(Connection(), namespace) as found:
        yield found


@pytest.fixture
def site(cluster: Cluster) -> Site:
    """A service in the fresh namespace; nothing is deployed."""
    return Site(cluster)


@pytest.fixture(name="kubectl")
def _kubectl(namespace: str) -> Callable[..., str]:
    """What another person does in the namespace."""
    return functools.partial(kubectl, namespace)
