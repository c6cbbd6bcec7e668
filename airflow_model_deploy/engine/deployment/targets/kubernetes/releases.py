"""Releases as the cluster keeps them, in immutable ConfigMaps: going back needs neither a store nor a registry."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import ExistsError
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import REVISION, SERVICE
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging import Release, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import Target


@dataclass(frozen=True)
class Delivered:
    """A release in the cluster: the name of its ConfigMap, and the revision that it is."""

    map_name: str
    revision: str


def target_of(release: Release, namespace: str) -> Target:
    """Return what the objects of a release are built from.

    Raises:
        InputError: the release has no image by digest.
    """
    image = release.image or ""
    if "@sha256:" not in image:
        raise InputError(
            f"release of {release.plan.name} for a cluster",
            found=f"image {image or 'none'}",
            wanted="an image of a registry, by digest",
            remedy="Package it with a registry that the cluster pulls from.",
        )
    if release.plan.name == "default" or release.plan.name.endswith("-canary"):
        raise InputError(
            f"a service named {release.plan.name}",
            found="a name that the cluster, or another service's canary, has already",
            wanted="another one: not 'default', and without '-canary' at its end",
            remedy="Give the model another name.",
        )
    workload = release.plan.workload or Workload()
    return objects.Target(release.plan.name, namespace, image, release.plan.resources, workload)


def deliver(cluster: Cluster, release: bytes, index: bytes, golden: bytes) -> Delivered:
    """Put a release and its golden requests into the cluster, where they aren't there yet; starts nothing.

    Args:
        cluster: and its namespace.
        release: the bytes of the release, as packaging wrote them.
        index: of the servable's index; the model itself is in the image.
        golden: of its golden requests.

    Raises:
        InputError: they are too large to be kept in a cluster, or the release has no image of a registry.
        IntegrityError: something else is there under the release's name.
    """
    parsed = Release.from_json(json.loads(release))
    target = target_of(parsed, cluster.namespace)
    revision = objects.revision_of_template(target)
    maps = objects.release_maps(
        target.name, cluster.namespace, revision, release=release, index=index, golden=golden
    )
    for one in maps:
        _create(cluster, one)
    return Delivered(str(maps[-1]["metadata"]["name"]), revision)


def delivered(cluster: Cluster, service: str, map_name: str) -> Delivered:
    """Return a release that was delivered.

    Raises:
        InputError: there is no such ConfigMap.
        IntegrityError: its content isn't what its name says.
    """
    kept = read_kept(cluster, service, map_name)
    return Delivered(map_name, objects.revision_of_template(target_of(kept.release, cluster.namespace)))


@dataclass(frozen=True)
class Kept:
    """A release as the cluster keeps it, with what a check asks."""

    release: Release
    index: bytes
    golden: bytes

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give a folder with the servable's index and golden requests, as a check reads them."""
        with TemporaryDirectory(prefix="model-deploy-golden-") as folder:
            servable = Path(folder) / "servable"
            servable.mkdir()
            (servable / "servable.json").write_bytes(self.index)
            (servable / Path(json.loads(self.index)["golden"]).name).write_bytes(self.golden)
            yield Path(folder)


def read_kept(cluster: Cluster, service: str, map_name: str) -> Kept:
    """Return a delivered release.

    Raises:
        InputError: there is no such ConfigMap.
        IntegrityError: its content isn't what its name says.
    """
    main = cluster.get("ConfigMap", map_name)
    if main is None or (main["metadata"].get("labels") or {}).get(SERVICE) != service:
        raise InputError(
            f"the release {map_name} of {service}",
            found=f"no such ConfigMap in namespace {cluster.namespace}",
            wanted="a release that was delivered",
            remedy="Deploy it again from its artifact.",
        )
    chunks = [cluster.get("ConfigMap", name) for name in objects.chunk_names(main)]
    contents = objects.read_release_maps([main, *(one for one in chunks if one)])
    wanted = objects.release_name(service, contents[0])
    if wanted != map_name:
        raise IntegrityError(f"ConfigMap {map_name}", found=wanted, wanted=map_name)
    release, index, golden = contents
    return Kept(Release.from_json(json.loads(release)), index, golden)


def revision_label(thing: dict[str, Any]) -> str | None:
    """Return the revision that an object belongs to."""
    value: str | None = (thing["metadata"].get("labels") or {}).get(REVISION)
    return value


def _create(cluster: Cluster, wanted: dict[str, Any]) -> None:
    try:
        cluster.create(wanted)
    except ExistsError:
        name = wanted["metadata"]["name"]
        found = cluster.get("ConfigMap", name) or {}
        # It holds the sha256 of what is packed beside it, and packing is not the same bytes everywhere.
        if (found.get("data") or {}) != wanted["data"]:
            raise IntegrityError(
                f"ConfigMap {name} in namespace {cluster.namespace}",
                found="other content under the same name",
                wanted="what the release's digest stands for",
                remedy="Remove it if no rollout uses it, then deploy again.",
            ) from None
