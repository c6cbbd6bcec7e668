"""What an image is made of and how it runs; knows no registry, no engine and no tar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from airflow_model_deploy.engine.artifacts import digest_of
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images.entries import File, Folder, Layer, require

__all__ = ["KINDS", "File", "Folder", "Healthcheck", "ImageSpec", "Layer", "Settings"]

KINDS = ("runtime", "model", "worker", "driver")

_RECIPE = 2  # raised when the same spec gives another image: tags come from the key
_TAG_KEY_LENGTH = 12
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}/(tcp|udp)")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")


@dataclass(frozen=True)
class Healthcheck:
    """How an engine asks a container whether it is well: a command without a shell."""

    command: tuple[str, ...]
    interval_s: float = 10.0
    timeout_s: float = 5.0
    start_period_s: float = 60.0
    retries: int = 3

    def __post_init__(self) -> None:
        if not self.command:
            raise InputError("the command of a health check", found="nothing", wanted="a program")
        if min(self.interval_s, self.timeout_s, self.start_period_s, self.retries) <= 0:
            raise InputError("the times and retries of a health check", found=self, wanted="more than 0")


@dataclass(frozen=True)
class Settings:
    """How a container of the image runs. What is None, or not named in a mapping, stays the base's.

    Args:
        entrypoint: program and first arguments.
        command: arguments after the entrypoint.
        env: variables added to the base's. Never a secret: everybody who pulls an image reads them.
        user: "uid:gid".
        working_dir: absolute path.
        labels: added to the base's; a builder adds `builder_labels` on top.
        ports: "8080/tcp".
        healthcheck: how an engine sees that the program answers.
        stop_signal: "SIGTERM".
    """

    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    working_dir: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    stop_signal: str | None = None

    def __post_init__(self) -> None:
        for name in self.env:
            require(
                _ENV_NAME.fullmatch(name), "the name of an environment variable", name, "letters, digits, '_'"
            )
        for port in self.ports:
            require(_PORT.fullmatch(port), "a port of the image", port, "like 8080/tcp")
        for label in self.labels:
            require(label and label == label.strip(), "the name of a label", label, "a name")
        require(self.user is None or _USER.fullmatch(self.user), "the user", self.user, "like 65532:65532")
        absolute = self.working_dir is None or self.working_dir.startswith("/")
        require(absolute, "the working folder", self.working_dir, "an absolute path")
        signal = self.stop_signal is None or self.stop_signal.startswith("SIG")
        require(signal, "the stop signal", self.stop_signal, "like SIGTERM")


@dataclass(frozen=True)
class ImageSpec:
    """A base, the layers on top of it and the settings: all that decides what the image is.

    Args:
        base: "host/repository:tag", "repository@sha256:..", or "oci-layout:/path[:tag|@digest]".
        layers: from the bottom up.
        settings: how it runs.
        kind: one of `KINDS`.
    """

    base: str
    layers: tuple[Layer, ...]
    settings: Settings
    kind: str

    def __post_init__(self) -> None:
        require(bool(self.base.strip()), "the base of an image", self.base, "a reference")
        require(self.kind in KINDS, "the kind of an image", self.kind, f"one of {', '.join(KINDS)}")

    def content_key(self, base_key: str) -> str:
        """Hash all that decides the image, as hex; reads every file once.

        Args:
            base_key: what `foundation.base_key` makes of the base's config: one platform's, whoever reads it.
        """
        from airflow_model_deploy.engine.packaging.images.layers import diff_id

        return self.key_of(base_key, tuple(diff_id(layer) for layer in self.layers))

    def key_of(self, base_key: str, diff_ids: tuple[str, ...]) -> str:
        """`content_key` for who knows the layers' diff ids: they cover path, content, mode and owner."""
        content = {
            "recipe": _RECIPE,
            "base": base_key,
            "layers": [
                [layer.name, layer.compressed, diff_id]
                for layer, diff_id in zip(self.layers, diff_ids, strict=True)
            ],
            "settings": asdict(self.settings),
            "kind": self.kind,
        }
        return digest_of(content).removeprefix("sha256:")

    def tag(self, content_key: str) -> str:
        """The tag that an image with this key gets."""
        return f"{self.kind}-{content_key[:_TAG_KEY_LENGTH]}"
