"""What every builder of images takes, writes and returns; builds none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from airflow_model_deploy.engine.packaging.images.reference import LayoutReference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.packaging.images.spec import ImageSpec

BASE_NAME_LABEL = "org.opencontainers.image.base.name"
BASE_DIGEST_LABEL = "org.opencontainers.image.base.digest"
KIND_LABEL = "io.model-deploy.kind"
CONTENT_KEY_LABEL = "io.model-deploy.content-key"


def base_name(base: str) -> str | None:
    """A base's name in a label: not its digest, which has a label of its own.

    None for a path, which nobody else has, and for an image that has only an id.
    """
    if base.startswith("sha256:"):
        return None
    reference = parse_reference(base)
    return None if isinstance(reference, LayoutReference) else str(replace(reference, digest=None))


def builder_labels(spec: ImageSpec, *, base_digest: str, content_key: str) -> dict[str, str]:
    """The labels that every builder writes: the spec's, then what only a builder knows.

    Args:
        spec: the image's.
        base_digest: what the base was when this image was built.
        content_key: what a later build compares before it does anything.
    """
    name = base_name(spec.base)
    named = {BASE_NAME_LABEL: name} if name else {}
    known = {BASE_DIGEST_LABEL: base_digest, KIND_LABEL: spec.kind, CONTENT_KEY_LABEL: content_key}
    return {**spec.settings.labels, **named, **known}


@dataclass(frozen=True)
class Built:
    """An image that is where it was wanted.

    Args:
        reference: "repository@sha256:<manifest>" when pushed; "sha256:<image id>" when only on an engine;
            "oci-layout:/path@sha256:..".
        digest: of the manifest; the image id where nothing was pushed.
        image_id: what an engine calls it: the digest of its config, on engines with containerd's store its manifest's.
        tag: what was tagged, without the repository.
        existed: it was there already and nothing was sent.
        size_bytes: of its blobs, the base's included.
        uploaded_bytes: of the blobs and manifests that had to be sent or written.
        base_digest: of the base's manifest, or of its index where an engine was told that one.
    """

    reference: str
    digest: str
    image_id: str
    tag: str | None
    existed: bool
    size_bytes: int
    uploaded_bytes: int
    base_digest: str


class Builder(Protocol):
    """One way to build an image and put it somewhere."""

    name: str

    def build(self, spec: ImageSpec, destination: str, *, log: Callable[[str], None]) -> Built:
        """Build, push and tag; the same content under the tag already: nothing is sent.

        Args:
            spec: what to build.
            destination: "registry.example:5000/models/digits"; for `oci` also "oci-layout:/path"; for `docker`
                also "" or "local/name": leave it on the engine.
            log: takes one line at a time.
        """
        ...
