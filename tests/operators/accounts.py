"""What a ServiceAccount of docs/kubernetes may do, and what it was seen to ask the API server for."""

from __future__ import annotations

import base64
import os
import re
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import urllib3
import yaml

from tests.conftest import REPOSITORY
from tests.engine.deployment.cluster.namespaces import kubectl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_model_deploy.engine.deployment import kubernetes

DOCS = REPOSITORY / "docs" / "cluster-roles"
# ("group/resource/subresource", verb); the core group is "".
Right = tuple[str, str]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OBJECT = re.compile(
    r"^/(?:api|apis/(?P<group>[^/]+))/[^/]+/namespaces/[^/]+/(?P<resource>[^/]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+))?)?"
)


def account(cluster: kubernetes.Cluster, name: str) -> dict[str, Any]:
    """Apply docs/cluster-roles/<name>.yaml; returns a kubeconfig with the rights of its ServiceAccount only."""
    namespace = cluster.namespace
    kubectl(namespace, "apply", "-f", str(DOCS / f"{name}.yaml"))
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/model-deploy-{name}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster._send("POST", path, body=request)["status"]["token"]
    config: dict[str, Any] = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    config["users"] = [{"name": name, "user": {"token": token}}]
    for one in config["contexts"]:
        one["context"] |= {"user": name}
    for one in config["clusters"]:
        if file := one["cluster"].pop("certificate-authority", None):
            content = base64.b64encode(Path(file).read_bytes()).decode()
            one["cluster"]["certificate-authority-data"] = content
    return config


def allowed(name: str) -> set[Right]:
    """Return the rights that docs/cluster-roles/<name>.yaml gives."""
    objects = yaml.safe_load_all((DOCS / f"{name}.yaml").read_text())
    rules = [rule for one in objects if one["kind"] == "Role" for rule in one["rules"]]
    return {
        (f"{group}/{resource}", verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


class Asked:
    """What was asked for in this process, whichever client asked, by the token that it was asked with."""

    def __init__(self) -> None:
        self._by_token: defaultdict[str, set[Right]] = defaultdict(set)

    def of(self, config: Mapping[str, Any]) -> set[Right]:
        """Return the rights that a kubeconfig's user needed."""
        return set(self._by_token[config["users"][0]["user"]["token"]])

    def note(self, method: str, url: str, headers: Mapping[str, str] | None, status: int) -> None:
        """Note one call."""
        found = _OBJECT.match(urlsplit(url).path)
        known = {name.lower(): value for name, value in (headers or {}).items()}
        token = known.get("authorization", "").removeprefix("Bearer ")
        if found is None or not token:
            return
        resource = f"{found['group'] or ''}/{found['resource']}" + (
            f"/{found['part']}" if found["part"] else ""
        )
        watching = "true" in [value.lower() for value in parse_qs(urlsplit(url).query).get("watch", [])]
        reads = "watch" if watching else "get" if found["name"] else "list"
        rights = {_VERBS.get(method, reads)}
        if method == "PATCH" and status == 201:
            rights.add("create")  # an apply of what wasn't there
        self._by_token[token] |= {(resource, verb) for verb in rights}


@contextmanager
def recorded() -> Iterator[Asked]:
    """Record every call to an API server while the block lasts."""
    asked = Asked()
    urlopen, request = urllib3.PoolManager.urlopen, aiohttp.ClientSession._request

    def noted(self: Any, method: str, url: str, *rest: Any, **options: Any) -> Any:
        answer = urlopen(self, method, url, *rest, **options)
        asked.note(method, url, options.get("headers"), answer.status)
        return answer

    async def noted_too(self: Any, method: str, url: Any, **options: Any) -> Any:
        answer = await request(self, method, url, **options)
        asked.note(method, str(url), options.get("headers"), answer.status)
        return answer

    urllib3.PoolManager.urlopen = noted  # type: ignore[method-assign]
    aiohttp.ClientSession._request = noted_too  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        urllib3.PoolManager.urlopen = urlopen  # type: ignore[method-assign]
        aiohttp.ClientSession._request = request  # type: ignore[method-assign]
