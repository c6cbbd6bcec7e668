"""The config and the manifest of an image, composed from its base's and a spec; holds no time, host or path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.packaging.images.blobs import OCI_MANIFEST, Descriptor, RawManifest, to_json
from airflow_model_deploy.engine.packaging.images.foundation import kept_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.engine.packaging.images.base import Base
    from airflow_model_deploy.engine.packaging.images.spec import Healthcheck, ImageSpec, Settings

EPOCH = "1970-01-01T00:00:00Z"

_PLATFORM = ("architecture", "os", "variant", "os.version", "os.features")
_NANOSECONDS = 1_000_000_000


def compose_config(base: Base, spec: ImageSpec, diff_ids: Sequence[str], labels: Mapping[str, str]) -> bytes:
    """Write the image's config: the base's, with layers on top and the settings over its own.

    Args:
        base: what is built upon.
        spec: what is added.
        diff_ids: of the spec's layers, in their order.
        labels: all that are added.
    """
    history = [
        *(base.config.get("history") or []),
        *({"created": EPOCH, "created_by": f"model-deploy: layer {layer.name}"} for layer in spec.layers),
        {
            "created": EPOCH,
            "created_by": f"model-deploy: settings of a {spec.kind} image",
            "empty_layer": True,
        },
    ]
    return to_json(
        {
            **{key: base.config[key] for key in _PLATFORM if base.config.get(key)},
            "created": EPOCH,
            "config": _run_config(kept_config(base.config), spec.settings, labels),
            "rootfs": {"type": "layers", "diff_ids": [*base.config["rootfs"]["diff_ids"], *diff_ids]},
            "history": history,
        }
    )


def compose_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> RawManifest:
    """Write the OCI manifest of an image."""
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return RawManifest(OCI_MANIFEST, to_json(content))


def _run_config(base: Mapping[str, Any], settings: Settings, labels: Mapping[str, str]) -> dict[str, Any]:
    config = dict(base)
    config["Labels"] = {**(base.get("Labels") or {}), **labels}
    config["Env"] = _merged_env(base.get("Env") or [], settings.env)
    ports = {**(base.get("ExposedPorts") or {}), **{port: {} for port in settings.ports}}
    own = {
        "Entrypoint": None if settings.entrypoint is None else list(settings.entrypoint),
        "Cmd": None if settings.command is None else list(settings.command),
        "User": settings.user,
        "WorkingDir": settings.working_dir,
        "ExposedPorts": ports or None,
        "StopSignal": settings.stop_signal,
        "Healthcheck": settings.healthcheck and _healthcheck(settings.healthcheck),
    }
    return {**config, **{key: value for key, value in own.items() if value is not None}}


def _merged_env(base: Sequence[str], added: Mapping[str, str]) -> list[str]:
    """The base's variables in their order, with new values where they are named again; then the new ones."""
    values = dict(entry.partition("=")[::2] for entry in base)
    values.update({name: added[name] for name in sorted(added)})
    return [f"{name}={value}" for name, value in values.items()]


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    return {
        "Test": ["CMD", *check.command],
        "Interval": round(check.interval_s * _NANOSECONDS),
        "Timeout": round(check.timeout_s * _NANOSECONDS),
        "StartPeriod": round(check.start_period_s * _NANOSECONDS),
        "Retries": check.retries,
    }
