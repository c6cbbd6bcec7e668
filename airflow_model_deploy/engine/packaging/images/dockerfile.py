"""An image's spec as a Dockerfile, every value quoted; writes text, knows no engine.

There is no RUN and no ARG in it: nothing is fetched, and nothing that isn't in the spec can reach a layer or
the history.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.engine.packaging.images.spec import Healthcheck, ImageSpec, Settings

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_SIGNAL = re.compile(r"SIG[A-Z0-9+-]+")


def write_dockerfile(
    spec: ImageSpec,
    *,
    base: str,
    base_command: Sequence[str] | None,
    labels: Mapping[str, str],
    archives: Sequence[str],
) -> str:
    """The Dockerfile of a spec, in the order in which a person would write it.

    Args:
        spec: the image's.
        base: what FROM names: "repository@sha256:..", or an image's id.
        base_command: the base's CMD. A new ENTRYPOINT would drop it, which is not what a spec without a command says.
        labels: what `builder_labels` returns. Those of more than one line are left out: see `split_labels`.
        archives: one tar of the build context for each layer; unpacked as they are, with owners and modes.

    Raises:
        InputError: a variable of more than one line, for which the language has no spelling.
    """
    settings = spec.settings
    command = settings.command
    if command is None and settings.entrypoint is not None and base_command:
        command = tuple(base_command)
    env = {name: _one_line(name, value) for name, value in settings.env.items()}
    parts = [
        f"FROM {base}",
        # First what is large and changes least: what comes before an instruction decides whether it is cached.
        *(f"ADD {_argv((archive, '/'))}" for archive in archives),
        *_pairs("ENV", env),
        *_running(settings),
        *_pairs("LABEL", split_labels(labels)[0]),
        *([] if settings.entrypoint is None else [f"ENTRYPOINT {_argv(settings.entrypoint)}"]),
        *([] if command is None else [f"CMD {_argv(command)}"]),
    ]
    return "\n".join(parts) + "\n"


def split_labels(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Labels that a Dockerfile can carry, and those with a line break, which go with the call to the engine."""
    longer = {k: v for k, v in labels.items() if "\n" in k + v}
    return {k: v for k, v in labels.items() if k not in longer}, longer


def quoted(value: str) -> str:
    r"""A value in double quotes, in which the language sees \\, \" and $ only; none is left to be seen."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def _pairs(instruction: str, values: Mapping[str, str]) -> list[str]:
    """One instruction for all of them: each instruction is an image of its own while the engine builds."""
    pairs = [f"{_name(name)}={quoted(value)}" for name, value in sorted(values.items())]
    separator = " \\\n" + " " * (len(instruction) + 1)
    return [f"{instruction} {separator.join(pairs)}"] if pairs else []


def _running(settings: Settings) -> list[str]:
    lines = []
    if settings.working_dir is not None:
        lines.append(f"WORKDIR {quoted(_one_line('the working folder', settings.working_dir))}")
    if settings.user is not None:
        lines.append(f"USER {settings.user}")
    if settings.ports:
        lines.append(f"EXPOSE {' '.join(settings.ports)}")
    if settings.stop_signal is not None:
        if not _SIGNAL.fullmatch(settings.stop_signal):
            raise InputError("the stop signal", found=repr(settings.stop_signal), wanted="like SIGTERM")
        lines.append(f"STOPSIGNAL {settings.stop_signal}")
    if settings.healthcheck is not None:
        lines.append(_healthcheck(settings.healthcheck))
    return lines


def _healthcheck(check: Healthcheck) -> str:
    times = {"interval": check.interval_s, "timeout": check.timeout_s, "start-period": check.start_period_s}
    options = [f"--{name}={_duration(seconds)}" for name, seconds in times.items()]
    return f"HEALTHCHECK {' '.join(options)} --retries={check.retries} CMD {_argv(check.command)}"


def _duration(seconds: float) -> str:
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"


def _argv(arguments: Sequence[str]) -> str:
    """The JSON form, which runs without a shell; one line whatever the arguments hold."""
    return json.dumps(list(arguments), ensure_ascii=False)


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else quoted(name)


def _one_line(name: str, value: str) -> str:
    if "\n" in value:
        raise InputError(
            f"{name} of an image",
            found=f"a line break in {value!r}",
            wanted="one line: a Dockerfile can't spell more",
            remedy="Leave the line break out, or build with the backend that needs no engine (oci)",
        )
    return value
