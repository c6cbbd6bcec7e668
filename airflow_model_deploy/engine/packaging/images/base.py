"""The image that is built upon: its manifest for one platform, its config, its layers in OCI's own types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging.images.blobs import (
    INDEXES,
    MANIFESTS,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    Descriptor,
    json_object,
    read_small,
)

if TYPE_CHECKING:
    from airflow_model_deploy.engine.packaging.images.blobs import Place, RawManifest

_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{OCI_LAYER}+zstd",
    **{kind: kind for kind in (OCI_LAYER, OCI_LAYER_GZIP, f"{OCI_LAYER}+zstd")},
}
_DEEPEST = 3  # an index may name an index; a chain of them is a mistake


@dataclass(frozen=True)
class Base:
    """What is read of a base before anything of it is copied.

    Args:
        name: how it was asked for.
        digest: of its manifest for the platform.
        config: its parsed config.
        layers: from the bottom up, with OCI media types.
    """

    name: str
    digest: str
    config: dict[str, Any]
    layers: tuple[Descriptor, ...]

    @property
    def platform(self) -> str:
        """Such as "linux/arm64/v8"."""
        return _platform(self.config)


def read_base(place: Place, reference: str | None, platform: str, name: str, *, exact: bool = True) -> Base:
    """Read a base's manifest and config.

    Args:
        place: where it is.
        reference: its tag or digest.
        platform: "linux/amd64" or "linux/arm64/v8"; chooses from an index.
        name: how errors call it.
        exact: whether an image that is there for one platform only must be for this one.

    Raises:
        InputError: no such image, none for the platform, or of a kind that can't be built upon.
        IntegrityError: something isn't what its digest says.
    """
    manifest = place.read_manifest(reference)
    chosen = manifest.media_type in INDEXES
    for _ in range(_DEEPEST):
        if manifest.media_type not in INDEXES:
            break
        manifest = place.read_manifest(_choose(manifest, platform, name))
    if manifest.media_type not in MANIFESTS:
        raise InputError(
            f"{name} can't be a base", found=manifest.media_type, wanted="an OCI or Docker schema 2 image"
        )
    described, found = descriptors_of(manifest, name)
    layers = tuple(_layer(layer, name) for layer in found)
    config = json_object(read_small(place.content(described), described, f"the config of {name}"), name)
    _check(config, layers, platform if exact or chosen else _platform(config), name)
    return Base(name, manifest.digest, config, layers)


def descriptors_of(manifest: RawManifest, name: str) -> tuple[Descriptor, list[Descriptor]]:
    """The config and the layers that an image's manifest names."""
    content = manifest.json(name)
    layers = [_descriptor(entry, name) for entry in _list(content, "layers", name)]
    return _descriptor(content.get("config"), name), layers


def _choose(index: RawManifest, platform: str, name: str) -> str:
    entries = _list(index.json(name), "manifests", name)
    found = {
        _platform(entry.get("platform") or {}): _descriptor(entry, name).digest for entry in reversed(entries)
    }
    same = [known for known in found if known == platform or known.startswith(f"{platform}/")]
    if not same:
        raise InputError(
            f"{name} is not there for {platform}", found=", ".join(sorted(found)), wanted=platform
        )
    return found[platform if platform in same else sorted(same)[-1]]


def _check(config: dict[str, Any], layers: tuple[Descriptor, ...], platform: str, name: str) -> None:
    found = _platform(config)
    if found != platform and not found.startswith(f"{platform}/") and not platform.startswith(f"{found}/"):
        raise InputError(f"{name} is for another platform", found=found, wanted=platform)
    diff_ids = (config.get("rootfs") or {}).get("diff_ids")
    if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
        raise IntegrityError(
            f"{name} lists its layers inconsistently", found=diff_ids, wanted=f"{len(layers)} layers"
        )


def _platform(values: dict[str, Any]) -> str:
    parts = (values.get("os"), values.get("architecture"), values.get("variant"))
    return "/".join(str(part) for part in parts if part)


def _layer(found: Descriptor, name: str) -> Descriptor:
    if found.media_type not in _LAYER_TYPES:
        raise InputError(
            f"{name} has a layer that can't be copied",
            found=found.media_type,
            wanted="a tar, plain, gzip or zstd",
        )
    return Descriptor(_LAYER_TYPES[found.media_type], found.digest, found.size)


def _descriptor(entry: Any, name: str) -> Descriptor:
    try:
        return Descriptor(str(entry["mediaType"]), str(entry["digest"]), int(entry["size"]))
    except (KeyError, TypeError, ValueError) as e:
        raise IntegrityError(
            f"the manifest of {name} can't be read", found=entry, wanted="a descriptor"
        ) from e


def _list(content: dict[str, Any], key: str, name: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise IntegrityError(f"the manifest of {name} can't be read", wanted=f"a list of {key}")
    return value
