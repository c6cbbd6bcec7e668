"""A repository of a registry as a place of images, over the OCI distribution API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging.images.blobs import (
    INDEXES,
    MANIFESTS,
    Descriptor,
    MissingBlobError,
    RawManifest,
    json_object,
    verified,
)
from airflow_model_deploy.engine.packaging.images.registry_http import read_all, read_blocks
from airflow_model_deploy.engine.packaging.images.registry_session import RefusedError, Session
from airflow_model_deploy.engine.packaging.images.registry_upload import Upload
from airflow_model_deploy.engine.packaging.images.retrying import Patience, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import httpx

    from airflow_model_deploy.engine.containers import Credentials
    from airflow_model_deploy.engine.packaging.images.blobs import Content
    from airflow_model_deploy.engine.packaging.images.reference import ImageReference
    from airflow_model_deploy.engine.packaging.images.registry_http import RegistryOptions

_NO_MOUNT = (401, 403, 404, 405)  # not of that repository, or never
_ACCEPTED = ", ".join((*INDEXES, *MANIFESTS))


class Registry:
    """One repository; use as a context manager.

    Args:
        repository: which one; its tag and digest don't matter.
        credentials: all that there are.
        options: how registries are spoken to.
        push: whether to ask for the right to write.
        mount_from: repositories of the same registry whose blobs may be taken over.
    """

    def __init__(
        self,
        repository: ImageReference,
        credentials: Sequence[Credentials],
        options: RegistryOptions,
        *,
        push: bool = False,
        mount_from: Sequence[str] = (),
    ) -> None:
        self.repository = repository
        actions = "pull,push" if push else "pull"
        scopes = [f"repository:{repository.repository}:{actions}"]
        scopes += [f"repository:{name}:pull" for name in mount_from if name != repository.repository]
        self._session = Session(repository, credentials, options, tuple(scopes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def find_manifest(self, reference: str) -> RawManifest | None:
        """Read a manifest or index by tag or digest, verified where a digest is known; None where there is none."""
        url = self._session.url(f"manifests/{reference}")

        def attempt() -> RawManifest | None:
            response = self._session.once("GET", url, {"Accept": _ACCEPTED}, missing_ok=True)
            data = read_all(response)
            if response.status_code == 404:
                return None
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            said = response.headers.get("Docker-Content-Digest")
            return self._checked(RawManifest(media_type, data), reference, said)

        return self._session.patiently(attempt)

    def read_manifest(self, reference: str | None) -> RawManifest:
        """Read a manifest or index by tag or digest; InputError where there is none."""
        wanted = reference or "latest"
        found = self.find_manifest(wanted)
        if found is None:
            raise InputError(
                f"{self.repository.name} has no image {wanted}",
                remedy="Look at the spelling, and whether the image was pushed",
            )
        return found

    def content(self, descriptor: Descriptor) -> Content:
        """The content of a blob; reading all of it verifies it."""
        return _RemoteContent(self._session, descriptor, f"{self.repository.name}@{descriptor.digest}")

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        response = self._session.call("HEAD", self._session.url(f"blobs/{digest}"), missing_ok=True)
        response.close()
        return response.status_code != 404

    def put(self, descriptor: Descriptor, content: Content, *, mount_from: str | None = None) -> int:
        """Put a blob here unless it is; return how many bytes were sent.

        Args:
            descriptor: what it is.
            content: read only where the blob has to be sent.
            mount_from: a repository of this registry that has it.
        """
        if self.has(descriptor.digest):
            return 0
        begun = self._mount(descriptor, mount_from) if mount_from else None
        if begun is not None and begun.status_code == 201:
            begun.close()
            return 0
        return Upload(self._session, descriptor, content, lambda: self.has(descriptor.digest)).run(begun)

    def _mount(self, descriptor: Descriptor, mount_from: str) -> httpx.Response | None:
        """Ask to take a blob over; None where the registry won't hear of it: then it is sent like any other."""
        query = urlencode({"mount": descriptor.digest, "from": mount_from})
        try:
            return self._session.call("POST", self._session.url(f"blobs/uploads/?{query}"), body=b"")
        except RefusedError as e:
            if e.status not in _NO_MOUNT:
                raise
            return None

    def put_manifest(self, manifest: RawManifest, tag: str | None) -> int:
        """Put a manifest by its digest, or let a tag name it; return the bytes sent."""
        url = self._session.url(f"manifests/{tag or manifest.digest}")
        response = self._session.call("PUT", url, {"Content-Type": manifest.media_type}, manifest.data)
        response.close()
        said = response.headers.get("Docker-Content-Digest")
        if said not in (None, manifest.digest):
            raise IntegrityError(f"{url} holds another manifest", found=said, wanted=manifest.digest)
        return len(manifest.data)

    def _checked(self, manifest: RawManifest, reference: str, said: str | None) -> RawManifest:
        thing = f"the manifest {reference} of {self.repository.name}"
        for wanted in (reference if ":" in reference else None, said):
            if wanted is not None and wanted != manifest.digest:
                raise IntegrityError(
                    f"{thing} isn't what its digest says",
                    found=manifest.digest,
                    wanted=wanted,
                    remedy="Don't use it; look who answers for the registry",
                )
        if manifest.media_type in (*INDEXES, *MANIFESTS):
            return manifest
        # Some registries answer with a plain JSON type; the content says what it is.
        named = json_object(manifest.data, thing).get("mediaType")
        return RawManifest(str(named or manifest.media_type), manifest.data)


@dataclass(frozen=True)
class _RemoteContent:
    session: Session
    descriptor: Descriptor
    source: str

    def read(self, offset: int = 0) -> Iterator[bytes]:
        if offset:  # what came before is not seen here: whoever stores the blob verifies it as a whole
            return self._stream(offset)
        return verified(self._stream(0), self.descriptor, self.source)

    def _stream(self, position: int) -> Iterator[bytes]:
        patience = Patience(self.session.options.patience_s)
        while position < self.descriptor.size:
            try:
                for block in self._from(position):
                    position += len(block)
                    patience.progressed()
                    yield block
                if position < self.descriptor.size:
                    raise TransientError(f"{self.source} broke off", found=f"{position} bytes")
            except TransientError as trouble:
                patience.wait(trouble)

    def _from(self, position: int) -> Iterator[bytes]:
        url = self.session.url(f"blobs/{self.descriptor.digest}")
        wanted = {"Range": f"bytes={position}-"} if position else {}
        try:
            response = self.session.once("GET", url, wanted)
        except RefusedError as e:
            if e.status == 404:
                raise MissingBlobError(
                    f"{self.source} is missing",
                    found=e.found,
                    remedy="Push the image that names it again",
                ) from e
            raise
        skip = position if response.status_code != 206 else 0
        for block in read_blocks(response):
            if skip >= len(block):
                skip -= len(block)
                continue
            yield block[skip:]
            skip = 0
