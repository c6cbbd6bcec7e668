"""Says how far a large blob is; knows not where it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.packaging.images.blobs import Content, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS_BETWEEN_LINES = 10.0
_MB = 1_000_000


@dataclass(frozen=True)
class NarratedContent:
    """A content that tells every ten seconds how much of it was read."""

    content: Content
    descriptor: Descriptor
    what: str
    log: Callable[[str], None]

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on."""
        last, done = time.monotonic(), offset
        for block in self.content.read(offset):
            yield block
            done += len(block)
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                self.log(f"{self.what}: {done // _MB:,} of {self.descriptor.size // _MB:,} MB")
