"""What the engine knows of a service's containers; changes nothing."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import engine_errors, tail
from airflow_model_deploy.engine.deployment.targets.docker.service import REVISION, ROLE, SERVER, SERVICE
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from docker import APIClient

_LAST_LINES = 5


def find_container(client: APIClient, name: str) -> dict[str, Any] | None:
    """A container as the engine describes it, or None."""
    from docker.errors import NotFound

    with engine_errors(f"container {name}"):
        try:
            return dict(client.inspect_container(name))
        except NotFound:
            return None


def running(found: dict[str, Any]) -> bool:
    """Whether an inspected container runs."""
    return bool(found["State"]["Running"]) and not found["State"].get("Restarting")


def server_containers(client: APIClient, service: str) -> dict[str, dict[str, Any]]:
    """The servers of a service, running or not, as the engine lists them, by revision."""
    labels = [f"{SERVICE}={service}", f"{ROLE}={SERVER}"]
    with engine_errors(f"containers of {service}"):
        listed = client.containers(all=True, filters={"label": labels})
    return {str(one["Labels"].get(REVISION)): dict(one) for one in listed}


def why_ended(client: APIClient, found: dict[str, Any]) -> str | None:
    """Why an inspected container has ended, in the engine's own words and its last; None where it hasn't."""
    state = found["State"]
    if state["Running"] or state["Status"] in ("created", "restarting"):
        return None
    if state.get("OOMKilled"):
        limit = found["HostConfig"]["Memory"] / (1 << 20)
        return f"OOMKilled: it wanted more than its {limit:.0f} MiB of memory"
    words = tail(client, found["Id"], _LAST_LINES).replace("\n", " | ")
    error = f" ({state['Error']})" if state.get("Error") else ""
    return f"exit code {state['ExitCode']}{error}: {words}"


def fetch_file(client: APIClient, container: str, path: str, max_bytes: int) -> bytes | None:
    """A regular file out of a container, which needs not run; None where there is none.

    Raises:
        InputError: it is a link or anything else, or larger than it may be.
    """
    from docker.errors import NotFound

    thing = f"{path} of container {container}"
    with engine_errors(thing):
        try:
            chunks, stat = client.get_archive(container, path)
        except NotFound:
            return None
        if stat.get("linkTarget") or stat["size"] > max_bytes:
            raise InputError(thing, found=stat, wanted=f"a regular file of at most {max_bytes} bytes")
        # The size above is the engine's word; the archive's own end is what counts.
        archive = bytearray()
        for chunk in chunks:
            archive += chunk
            if len(archive) > max_bytes + (1 << 20):
                raise InputError(thing, found="a longer archive", wanted=f"at most {max_bytes} bytes")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            member = opened.next()
            content = opened.extractfile(member) if member is not None and member.isreg() else None
            if content is not None:
                return content.read()
    except tarfile.TarError as error:
        raise InputError(thing, found=f"an archive that can't be read: {error}") from error
    raise InputError(thing, found="something else", wanted="a regular file")
