"""Builds an image without an engine: layers on a base, put into a registry or a layout; the tag comes last."""

from __future__ import annotations

import contextlib
import platform as host_platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.packaging.images.base import Base, descriptors_of, read_base
from airflow_model_deploy.engine.packaging.images.blobs import (
    MANIFESTS,
    OCI_CONFIG,
    BytesContent,
    Content,
    Descriptor,
    MissingBlobError,
    Place,
    json_object,
    read_small,
    sha256_of,
)
from airflow_model_deploy.engine.packaging.images.builder import CONTENT_KEY_LABEL, Built, builder_labels
from airflow_model_deploy.engine.packaging.images.foundation import (
    base_key,
    require_fit,
    wanted_architecture,
)
from airflow_model_deploy.engine.packaging.images.image_config import compose_config, compose_manifest
from airflow_model_deploy.engine.packaging.images.layers import LayerBlob, measure
from airflow_model_deploy.engine.packaging.images.layout import Layout
from airflow_model_deploy.engine.packaging.images.narration import NarratedContent
from airflow_model_deploy.engine.packaging.images.reference import (
    ImageReference,
    LayoutReference,
    parse_reference,
    parse_repository,
)
from airflow_model_deploy.engine.packaging.images.registry import Registry
from airflow_model_deploy.engine.packaging.images.registry_http import RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_model_deploy.engine.containers import Credentials
    from airflow_model_deploy.engine.packaging.images.blobs import RawManifest
    from airflow_model_deploy.engine.packaging.images.spec import ImageSpec

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class _Job:
    """One build's ends: where the base comes from, where the image goes."""

    base: Base
    source: Place
    target: Place
    mount_from: str | None


class OciBuilder:
    """Builds and pushes over the OCI distribution API; needs no engine, no socket and no root.

    The same spec gives the same digest on any path and day. Base layers are mounted from their repository where it
    is in the same registry, else streamed over; nothing but a compressed layer ever lies in a temporary file.

    Args:
        credentials: for every registry that is read or written.
        options: how registries are spoken to.
        platform: "linux/amd64"; empty: Linux on the processor that the spec's packages are for. Where any will
            do, a base of one platform decides, and of an index this machine's is taken.
    """

    name = "oci"

    def __init__(
        self,
        credentials: Sequence[Credentials] = (),
        options: RegistryOptions | None = None,
        platform: str = "",
    ) -> None:
        self._credentials = tuple(credentials)
        self._options = options or RegistryOptions()
        self._platform = platform

    def build(self, spec: ImageSpec, destination: str, *, log: Callable[[str], None]) -> Built:
        """Build an image into a repository or "oci-layout:/path"; there already: read only.

        Raises:
            InputError: a bad reference, a missing base, a refused credential, a source that is a link.
            IntegrityError: something isn't what its digest says, or a file changed meanwhile.
            UnavailableError: a registry or a disk that may do later; nothing is tagged, and what arrived stays.
        """
        base_reference, where = parse_reference(spec.base), parse_repository(destination)
        with contextlib.ExitStack() as stack:
            mount_from = _same_registry(base_reference, where)
            source = self._open(base_reference, stack)
            named = self._platform or _platform_of(spec)
            base = read_base(
                source, base_reference.wanted, named or _here(), str(base_reference), exact=bool(named)
            )
            require_fit(spec, str(base_reference), base.config)
            log(f"base {base_reference} is {base.digest} for {base.platform}")
            target = self._open(where, stack, push=True, mount_from=mount_from)
            return _build(spec, where, _Job(base, source, target, mount_from), log)

    def _open(
        self,
        reference: ImageReference | LayoutReference,
        stack: contextlib.ExitStack,
        push: bool = False,
        mount_from: str | None = None,
    ) -> Place:
        if isinstance(reference, LayoutReference):
            return Layout(reference.path)
        mounts = [mount_from] if mount_from else []
        registry = Registry(reference, self._credentials, self._options, push=push, mount_from=mounts)
        return stack.enter_context(registry)


def _build(
    spec: ImageSpec, where: ImageReference | LayoutReference, job: _Job, log: Callable[[str], None]
) -> Built:
    measured = [measure(layer) for layer in spec.layers]
    diff_ids = tuple(layer.diff_id for layer in measured)
    key = spec.key_of(base_key(job.base.config), diff_ids)
    tag = spec.tag(key)
    there = _find(job.target, tag, key)
    if there is not None:
        log(f"{where.tagged(tag)} is there already: {there.digest}")
        return _built(there, where, tag, job.base, None)
    sent = _put_base(job, log)
    layers = list(job.base.layers)
    for layer in measured:
        with LayerBlob(layer) as blob:
            sent += _put(job.target, blob.descriptor, blob, f"layer {layer.layer.name}", log)
            layers.append(blob.descriptor)
    labels = builder_labels(spec, base_digest=job.base.digest, content_key=key)
    config = compose_config(job.base, spec, diff_ids, labels)
    described = Descriptor(OCI_CONFIG, sha256_of(config), len(config))
    sent += job.target.put(described, BytesContent(config))
    manifest = compose_manifest(described, layers)
    sent += job.target.put_manifest(manifest, None)
    sent += job.target.put_manifest(manifest, tag)  # last: whoever sees the tag finds all that it names
    log(f"{where.tagged(tag)} is {manifest.digest}; {sent:,} bytes were sent")
    return _built(manifest, where, tag, job.base, sent)


def _put_base(job: _Job, log: Callable[[str], None]) -> int:
    sent = 0
    for descriptor in job.base.layers:
        content = job.source.content(descriptor)
        sent += _put(job.target, descriptor, content, "layer of the base", log, job.mount_from)
    return sent


def _put(
    place: Place,
    descriptor: Descriptor,
    content: Content,
    what: str,
    log: Callable[[str], None],
    mount_from: str | None = None,
) -> int:
    sent = place.put(descriptor, NarratedContent(content, descriptor, what, log), mount_from=mount_from)
    how = f"{sent:,} bytes were sent" if sent else "nothing had to be sent"
    log(f"{what}: {descriptor.digest}, {descriptor.size:,} bytes; {how}")
    return sent


def _find(place: Place, tag: str, key: str) -> RawManifest | None:
    """The image under a tag, if its label says that it has this content."""
    manifest = place.find_manifest(tag)
    if manifest is None or manifest.media_type not in MANIFESTS:
        return None
    config, _ = descriptors_of(manifest, tag)
    source = f"the config of {tag}"
    try:
        content = json_object(read_small(place.content(config), config, source), source)
    except MissingBlobError:  # a tag that survived its blobs; what is missing will be put there
        return None
    labels = (content.get("config") or {}).get("Labels") or {}
    return manifest if labels.get(CONTENT_KEY_LABEL) == key else None


def _built(
    manifest: RawManifest, where: ImageReference | LayoutReference, tag: str, base: Base, sent: int | None
) -> Built:
    config, layers = descriptors_of(manifest, tag)
    return Built(
        reference=f"{where}@{manifest.digest}",
        digest=manifest.digest,
        image_id=config.digest,
        tag=tag,
        existed=sent is None,
        size_bytes=config.size + sum(layer.size for layer in layers),
        uploaded_bytes=sent or 0,
        base_digest=base.digest,
    )


def _platform_of(spec: ImageSpec) -> str:
    architecture = wanted_architecture(spec)
    return f"linux/{architecture}" if architecture else ""


def _here() -> str:
    machine = host_platform.machine().lower()
    return f"linux/{_MACHINES.get(machine, machine)}"


def _same_registry(
    base: ImageReference | LayoutReference, where: ImageReference | LayoutReference
) -> str | None:
    """The repository whose blobs the registry may take over by itself."""
    if isinstance(base, LayoutReference) or isinstance(where, LayoutReference):
        return None
    same = base.registry == where.registry and base.repository != where.repository
    return base.repository if same else None
