"""Builds images on a Docker engine from a generated Dockerfile, and lets it push them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import (
    Credentials,
    Engine,
    StreamError,
    auth_config,
    connect,
    engine_errors,
    ensure_image,
    find_image,
    follow,
    named_registry,
    registry_errors,
    says_no_room,
)
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.packaging.images.builder import CONTENT_KEY_LABEL, Built, builder_labels
from airflow_model_deploy.engine.packaging.images.docker_base import (
    PinnedBase,
    pin_base,
    remote_digest,
    repo_digest,
)
from airflow_model_deploy.engine.packaging.images.docker_context import archive_names, stream_context
from airflow_model_deploy.engine.packaging.images.dockerfile import split_labels, write_dockerfile
from airflow_model_deploy.engine.packaging.images.foundation import base_key, require_fit
from airflow_model_deploy.engine.packaging.images.layers import measure
from airflow_model_deploy.engine.packaging.images.reference import LayoutReference, parse_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docker import APIClient

    from airflow_model_deploy.engine.packaging.images.spec import ImageSpec


class DockerBuilder:
    """Builds with the engine's own builder; engines from 20.10 on.

    Args:
        engine: which one.
        credentials: for the base's and the destination's registries; sent with each call, stored nowhere.
    """

    name = "docker"

    def __init__(self, engine: Engine, credentials: Sequence[Credentials] = ()) -> None:
        self._engine = engine
        self._credentials = tuple(credentials)

    def build(self, spec: ImageSpec, destination: str, *, log: Callable[[str], None]) -> Built:
        """Build, tag and, where the destination names a registry, push; what is there already is not built again.

        Args:
            spec: what to build; its base in a registry or on the engine.
            destination: "registry.example:5000/models/digits" pushes; "docker.io/me/digits" too; a name without a
                registry, or "", leaves the image on the engine.
            log: takes one line at a time.

        Raises:
            InputError: a reference or value that can't be used, no access, or a build that the engine refuses.
            UnavailableError: the engine or the registry doesn't answer, or has no room.
            IntegrityError: a file changed while it was packaged.
        """
        repository, push = _repository(spec, destination)
        with closing(connect(self._engine)) as client:
            base = pin_base(client, spec.base, self._credentials, log)
            require_fit(spec, spec.base, base.config)
            job = _Job(client, self._credentials, log, spec, base, repository)
            return job.push() if push else job.keep()


class _Job:
    """One image on its way: what `DockerBuilder.build` knows once the base is pinned."""

    def __init__(
        self,
        client: APIClient,
        credentials: Sequence[Credentials],
        log: Callable[[str], None],
        spec: ImageSpec,
        base: PinnedBase,
        repository: str,
    ) -> None:
        self.client, self.credentials, self.log = client, credentials, log
        self.spec, self.base, self.repository = spec, base, repository
        self.layers = [measure(layer) for layer in spec.layers]
        self.key = spec.key_of(base_key(base.config), tuple(measured.diff_id for measured in self.layers))
        self.tag = spec.tag(self.key)
        self.tagged = f"{repository}:{self.tag}"

    def keep(self) -> Built:
        """Leave the image on the engine."""
        image = self._ours(self.tagged)
        if image is not None:
            self.log(f"{self.tagged} is there already")
            return self._kept(image, existed=True)
        return self._kept(self._build(), existed=False)

    def push(self) -> Built:
        """Put the image into the registry, unless it is there."""
        digest = self._pushed_before()
        if digest is not None:
            pinned = f"{self.repository}@{digest}"
            ensure_image(self.client, pinned, self.credentials, log=self.log)
            image = self._ours(pinned)
            if image is not None:
                self.log(f"{self.tagged} is there already: {digest}")
                return self._pushed(image, digest, existed=True)
            self.log(f"{self.tagged} is there with other content; it is built and pushed anew")
        image = self._ours(self.tagged) or self._build()
        digest, sent = self._push()
        return self._pushed(image, digest, existed=False, sent=sent)

    def _pushed_before(self) -> str | None:
        try:
            return remote_digest(self.client, self.tagged, self.credentials)
        except (
            InputError
        ):  # some registries refuse to tell of what isn't there; pushing says what is the matter
            return None

    def _ours(self, reference: str) -> dict[str, Any] | None:
        """The image on the engine, if it is of this very content."""
        image = find_image(self.client, reference)
        labels = {} if image is None else image["Config"].get("Labels") or {}
        return image if labels.get(CONTENT_KEY_LABEL) == self.key else None

    def _build(self) -> dict[str, Any]:
        labels = builder_labels(self.spec, base_digest=self.base.digest, content_key=self.key)
        dockerfile = write_dockerfile(
            self.spec,
            base=self.base.pinned,
            base_command=self.base.command,
            labels=labels,
            archives=archive_names(self.layers),
        )
        thing = f"image {self.tagged} can't be built"
        try:
            with engine_errors(thing):
                stream = self.client.build(
                    fileobj=stream_context(dockerfile, self.layers),
                    custom_context=True,
                    tag=self.tagged,
                    labels=split_labels(labels)[1] or None,
                    network_mode="none",
                    rm=True,
                    forcerm=True,
                    decode=True,
                    use_config_proxy=False,  # a proxy's URL may hold a password, and would be a build argument
                )
                follow(stream, self.log)
        except StreamError as e:
            full = says_no_room(str(e))
            raise (UnavailableError if full else InputError)(thing, found=str(e)) from e
        image = self._ours(self.tagged)
        if image is None:
            raise UnavailableError(
                thing, found="its tag names another image now", wanted="nobody else to tag it"
            )
        return image

    def _push(self) -> tuple[str, int]:
        """Returns the manifest's digest and the bytes that were sent."""
        thing = f"image {self.tagged} can't be pushed"
        self.log(f"pushing {self.tagged}")
        with engine_errors(thing), registry_errors(thing, self.tagged):
            auth = auth_config(self.credentials, self.repository)
            stream = self.client.push(
                self.repository, tag=self.tag, stream=True, decode=True, auth_config=auth
            )
            outcome = follow(stream, self.log)
        digests = [str(aux["Digest"]) for aux in outcome.aux if "Digest" in aux]
        digest = (
            digests[-1]
            if digests
            else repo_digest(find_image(self.client, self.tagged) or {}, self.repository)
        )
        if digest is None:
            raise UnavailableError(thing, found="the engine told no digest", wanted="the manifest's digest")
        return digest, sum(outcome.sent.values())

    def _kept(self, image: dict[str, Any], *, existed: bool) -> Built:
        return self._built(image, str(image["Id"]), str(image["Id"]), existed=existed)

    def _pushed(self, image: dict[str, Any], digest: str, *, existed: bool, sent: int = 0) -> Built:
        # Never the id, though on engines with containerd's store it is the same digest: it names no repository.
        return self._built(image, f"{self.repository}@{digest}", digest, existed=existed, sent=sent)

    def _built(
        self, image: dict[str, Any], reference: str, digest: str, *, existed: bool, sent: int = 0
    ) -> Built:
        return Built(
            reference=reference,
            digest=digest,
            image_id=str(image["Id"]),
            tag=self.tag,
            existed=existed,
            size_bytes=int(image["Size"]),
            uploaded_bytes=sent,
            base_digest=self.base.digest,
        )


def _repository(spec: ImageSpec, destination: str) -> tuple[str, bool]:
    """The repository to tag in, and whether it is somewhere else than on the engine."""
    if not destination:
        return f"model-deploy/{spec.kind}", False
    reference = parse_repository(destination)
    if isinstance(reference, LayoutReference):
        raise InputError(
            "the destination of an image",
            found=destination,
            wanted="a repository: an engine doesn't write folders",
            remedy="Build with the backend that needs no engine (oci)",
        )
    return (reference.name, True) if named_registry(destination) else (destination, False)
