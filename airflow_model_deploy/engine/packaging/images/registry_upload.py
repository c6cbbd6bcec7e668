"""One blob on its way into a registry: in chunks, resumed from where the registry says it stands."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError, IntegrityError, ModelDeployError, UnavailableError
from airflow_model_deploy.engine.packaging.images.blobs import counting
from airflow_model_deploy.engine.packaging.images.registry_session import RefusedError
from airflow_model_deploy.engine.packaging.images.retrying import Patience, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from airflow_model_deploy.engine.packaging.images.blobs import Content, Descriptor
    from airflow_model_deploy.engine.packaging.images.registry_session import Session

_MOST_STARTS = 4
_BINARY = {"Content-Type": "application/octet-stream"}
_COMMITTED_PER_S = 50_000_000
_GONE = (400, 404, 410)  # what registries call an upload that they no longer know


class Upload:
    """Sends a blob. A broken chunk costs that chunk where the registry keeps what arrived before it.

    Args:
        session: the repository's.
        descriptor: what the blob is.
        content: its bytes.
        there: asks whether the blob has arrived after all.
    """

    def __init__(
        self, session: Session, descriptor: Descriptor, content: Content, there: Callable[[], bool]
    ) -> None:
        self._session, self._descriptor, self._there = session, descriptor, there
        self._cursor = _Cursor(content, descriptor.size)
        self._chunk = session.options.chunk_bytes
        self._location = ""  # where the next request goes; empty: nothing begun
        self._offset = 0
        self._sure = True  # whether the registry and we agree on the offset
        self._starts = 0
        self.sent = 0

    def run(self, begun: httpx.Response | None = None) -> int:
        """Send the blob; return how many bytes of bodies that took.

        Args:
            begun: the answer to a request that has begun the upload already.

        Raises:
            IntegrityError: what arrived isn't what the digest says.
            UnavailableError: the registry does not take it in time, or has no room.
        """
        if begun is not None:
            self._take_start(begun)
        patience = Patience(self._session.options.patience_s)
        try:
            while not self._attempt(patience):
                pass
        except (InputError, IntegrityError):
            self._cancel()
            raise
        return self.sent

    def _attempt(self, patience: Patience) -> bool:
        try:
            if not self._sure and self._arrived():
                return True
            if not self._location:
                self._take_start(self._session.once("POST", self._session.url("blobs/uploads/"), {}, b""))
            self._send(patience)
        except TransientError as trouble:
            self._sure = False
            patience.wait(trouble)
            return False
        return True

    def _send(self, patience: Patience) -> None:
        size = self._descriptor.size
        if self._offset == 0 and size <= self._chunk:
            return self._finish(size)
        while self._offset < size:
            before = self._offset
            self._patch(min(self._chunk, size - before))
            if self._offset <= before:
                raise TransientError("the registry took nothing of a chunk", found=f"{self._offset} bytes")
            patience.progressed()
        return self._finish(0)

    def _patch(self, length: int) -> None:
        end = self._offset + length
        headers = {**_BINARY, "Content-Length": str(length), "Content-Range": f"{self._offset}-{end - 1}"}
        try:
            response = self._session.once("PATCH", self._location, headers, lambda: self._body(length))
        except RefusedError as e:
            if e.status in (*_GONE, 416):
                raise TransientError(e.thing, found=e.found) from e
            raise
        self._take_position(response, end)

    def _finish(self, length: int) -> None:
        separator = "&" if "?" in self._location else "?"
        url = f"{self._location}{separator}digest={self._descriptor.digest}"
        headers = {**_BINARY, "Content-Length": str(length)}
        wait_s = (
            self._descriptor.size / _COMMITTED_PER_S
        )  # registries verify, and some copy, before they answer
        try:
            self._session.once("PUT", url, headers, lambda: self._body(length), extra_s=wait_s).close()
        except RefusedError as e:
            if "DIGEST_INVALID" in str(e.found):
                raise IntegrityError(
                    f"the registry received another blob than {self._descriptor.digest}",
                    found=e.found,
                    remedy="Look whether the file is being written; run the step again",
                ) from e
            if e.status in (*_GONE, 416):
                raise TransientError(e.thing, found=e.found) from e
            raise

    def _body(self, length: int) -> Iterator[bytes]:
        return counting(self._cursor.take(self._offset, length), self._count)

    def _count(self, size: int) -> None:
        self.sent += size

    def _arrived(self) -> bool:
        """After a broken request: is the blob there, and if not, how much of it?"""
        if self._there():
            return True
        self._sure = True
        if self._location:
            try:
                response = self._session.once("GET", self._location, {})
            except RefusedError as e:
                if e.status not in _GONE:
                    raise
                self._location, self._offset = "", 0
            else:
                self._take_position(response, 0)
        return False

    def _take_start(self, response: httpx.Response) -> None:
        self._starts += 1
        if self._starts > _MOST_STARTS:
            response.close()
            raise UnavailableError(
                f"the registry lost the upload of {self._descriptor.digest}",
                found=f"{_MOST_STARTS} times",
                remedy="Look at the connection to the registry and at its log, then run the step again",
            )
        self._take_position(response, 0)
        least = response.headers.get("OCI-Chunk-Min-Length", "0")
        self._chunk = max(self._chunk, int(least) if least.isdigit() else 0)

    def _take_position(self, response: httpx.Response, expected: int) -> None:
        response.close()
        location = response.headers.get("Location")
        if location:
            self._location = self._session.url(location)
        last = response.headers.get("Range", "").removeprefix("bytes=").rpartition("-")[2]
        # "0-0" is how registries say that nothing is there yet.
        self._offset = int(last) + 1 if last.isdigit() and int(last) else expected * (last != "0")
        if self._offset > self._descriptor.size:
            raise IntegrityError(
                "the registry holds more than was sent",
                found=self._offset,
                wanted=f"<= {self._descriptor.size}",
            )

    def _cancel(self) -> None:
        if self._location:
            with contextlib.suppress(ModelDeployError):
                self._session.once("DELETE", self._location, {}).close()


class _Cursor:
    """Reads a content onwards from chunk to chunk; opens it anew only where the offset jumps."""

    def __init__(self, content: Content, size: int) -> None:
        self._content, self._size = content, size
        self._stream: Iterator[bytes] | None = None
        self._position, self._rest = 0, b""

    def take(self, offset: int, length: int) -> Iterator[bytes]:
        if self._stream is None or offset != self._position:
            self._stream, self._position, self._rest = self._content.read(offset), offset, b""
        end = offset + length
        while self._position < end:
            block = self._rest or next(self._stream, b"")
            if not block:
                raise IntegrityError("a blob ended early", found=self._position, wanted=self._size)
            part, self._rest = block[: end - self._position], block[end - self._position :]
            self._position += len(part)
            yield part
        if length and end == self._size:  # lets a verified stream say whether it was the right one
            for _ in self._stream:
                pass
