"""A release as ConfigMaps, so that a rollout in the cluster needs no store: written once, read back whole."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import labels
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.metadata import metadata
from airflow_model_deploy.engine.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

# The API refuses a ConfigMap above 1 MiB; base64 and the request around it need room, too.
_CHUNK_BYTES = 700_000
_MOST_CHUNKS = 32
# No set of golden requests is larger; what unpacks to more is no release of ours.
_MOST_GOLDEN_BYTES = 1 << 30
_RELEASE, _INDEX, _GOLDEN = "release.json", "servable.json", "golden.json.gz"
_SHA256, _CHUNKS, _NUMBER = "golden.sha256", "golden.chunks", "golden.number"


def release_maps(
    name: str, namespace: str, revision: str, *, release: bytes, index: bytes, golden: bytes
) -> list[dict[str, Any]]:
    """Return the immutable ConfigMaps of a release; the last one is named by the release's digest.

    Created in this order, the last is only there once all are. Releases of one image with other objectives are
    one revision, and several of these.

    Args:
        name: the service's.
        namespace: of the objects.
        revision: the revision's.
        release: bytes of release.json.
        index: bytes of the servable's index.
        golden: bytes of its golden requests.

    Raises:
        InputError: more than the cluster's store should be made to hold.
    """
    packed = gzip.compress(golden, mtime=0)
    fixed = len(release) + len(index)
    if fixed > _CHUNK_BYTES or len(packed) > _MOST_CHUNKS * _CHUNK_BYTES:
        raise InputError(
            f"the release of {name}, which a cluster keeps beside its pods",
            found=f"{fixed} bytes of description, {len(packed)} bytes of packed golden requests",
            wanted=f"at most {_CHUNK_BYTES} and {_MOST_CHUNKS * _CHUNK_BYTES}",
            remedy="Build the servable with fewer golden requests.",
        )
    inline = fixed + len(packed) <= _CHUNK_BYTES
    starts = () if inline else range(0, len(packed), _CHUNK_BYTES)
    chunks = [packed[start : start + _CHUNK_BYTES] for start in starts]
    main = release_name(name, release)
    own = labels(name, revision)
    maps = [
        _map(f"{main}-golden-{n}", namespace, own, {_NUMBER: str(n)}, chunk) for n, chunk in enumerate(chunks)
    ]
    data = {
        _RELEASE: release.decode(),
        _INDEX: index.decode(),
        _SHA256: hashlib.sha256(golden).hexdigest(),
        _CHUNKS: str(len(chunks)),
    }
    return [*maps, _map(main, namespace, own, data, packed if inline else None)]


def release_name(name: str, release: bytes) -> str:
    """Return the name of the ConfigMap that holds a release."""
    return f"{name}-release-{hashlib.sha256(release).hexdigest()[:12]}"


def chunk_names(main: dict[str, Any]) -> list[str]:
    """Return the names of the ConfigMaps that hold what did not fit into a release's own."""
    count = int(main["data"].get(_CHUNKS, "0"))
    return [f"{main['metadata']['name']}-golden-{number}" for number in range(count)]


def read_release_maps(maps: Sequence[dict[str, Any]]) -> tuple[bytes, bytes, bytes]:
    """Return release, index and golden requests from one revision's ConfigMaps, in whatever order they come.

    Raises:
        IntegrityError: one is missing, is of another release, or doesn't hold what it held.
    """
    mains = [one for one in maps if _RELEASE in one.get("data", {})]
    if len(mains) != 1:
        raise IntegrityError(
            "the ConfigMaps of a release", found=f"{len(mains)} with {_RELEASE}", wanted="one"
        )
    main, name = mains[0], mains[0]["metadata"]["name"]
    by_name = {one["metadata"]["name"]: one for one in maps}
    try:
        data, count = main["data"], int(main["data"][_CHUNKS])
        holders = [by_name[f"{name}-golden-{n}"] for n in range(count)] or [main]
        packed = b"".join(b64decode(one["binaryData"][_GOLDEN], validate=True) for one in holders)
        golden = _unpacked(packed)
        release, index, wanted = data[_RELEASE].encode(), data[_INDEX].encode(), data[_SHA256]
    except (KeyError, ValueError, TypeError, EOFError, zlib.error) as error:
        raise IntegrityError(
            f"the release in ConfigMap {name}",
            found=f"{type(error).__name__}: {error}",
            wanted="the ConfigMaps that its rollout made",
            remedy="Deploy the release again.",
        ) from error
    found = hashlib.sha256(golden).hexdigest()
    if found != wanted:
        raise IntegrityError(f"the golden requests in ConfigMap {name}", found=found, wanted=wanted)
    return release, index, golden


def _unpacked(packed: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    content = stream.decompress(packed, _MOST_GOLDEN_BYTES)
    if not stream.eof or stream.unused_data:
        raise ValueError("not one whole gzip stream")
    return content


def _map(
    name: str, namespace: str, own: dict[str, str], data: dict[str, str], golden: bytes | None
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(name, namespace, own),
        "immutable": True,
        "data": data,
    }
    if golden is not None:
        value["binaryData"] = {_GOLDEN: b64encode(golden).decode()}
    return value
