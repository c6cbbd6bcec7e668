"""From an Airflow connection to what opens the artifact store; nothing but the fields named here is taken from it.

It goes to a step privately, by its standard input or a Secret: never into a request, an argument, a log or XCom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.execution import given
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = ("aws", "generic")
_SCHEMES = ("s3", "s3a")
_EXTRAS = ("endpoint_url", "region_name", "aws_session_token", "addressing_style", "verify", "anonymous")


def store_options(store: str | None, conn_id: str | None) -> dict[str, Any]:
    """Return what the file system of a store is opened with: {} where no connection is named, or it is local."""
    from airflow_model_deploy.engine.artifacts import is_local

    url = given(store) or execution.default_store()
    scheme = url.partition("://")[0]
    # The setting is for the stores that take a connection; the others find their own way.
    setting = read_config("model_deploy", "store_conn_id") if scheme in _SCHEMES else None
    named = given(conn_id) or setting
    if not named or is_local(url):
        return {}
    if scheme not in _SCHEMES:
        execution.fail(
            f"the store's connection {named!r} is for another kind of store; found: {scheme}://; wanted: s3://; leave"
            " store_conn_id out, and give the worker's user access to the store"
        )
    return _s3_options(named)


def _s3_options(conn_id: str) -> dict[str, Any]:
    from airflow.sdk import BaseHook

    connection = BaseHook.get_connection(conn_id)
    if connection.conn_type not in _TYPES:
        execution.fail(
            f"the store's connection {conn_id!r}; found: type {connection.conn_type}; wanted: one of"
            f" {', '.join(_TYPES)}"
        )
    extras = {name: value for name, value in connection.extra_dejson.items() if value not in (None, "", {})}
    # One that changes who is asked for what, unread, would open the store as somebody else.
    if unknown := sorted(set(extras) - set(_EXTRAS)):
        execution.fail(
            f"extra fields of the store's connection {conn_id!r}; found: {', '.join(unknown)}; wanted: none but"
            f" {', '.join(_EXTRAS)}"
        )
    _require_whole(conn_id, connection, extras)
    _mask(connection.password, extras.get("aws_session_token"))
    return _described(connection, extras)


def _require_whole(conn_id: str, connection: Any, extras: Mapping[str, Any]) -> None:
    """Refuse what would be dropped, and so ask another service, or as somebody else."""
    thing = f"the store's connection {conn_id!r}"
    if connection.host or connection.port:
        execution.fail(
            f"{thing}; found: a host or a port; wanted: none; put the service's URL into the extra field endpoint_url"
        )
    if bool(connection.login) != bool(connection.password):
        execution.fail(
            f"{thing}; found: one of login and password; wanted: both, or none for the machine's own"
        )
    if "@" in str(extras.get("endpoint_url", "")):
        execution.fail(
            f"{thing}; found: credentials in endpoint_url; wanted: a URL without; use login and password"
        )


def _described(connection: Any, extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return s3fs's own words for it."""
    client = {"region_name": extras.get("region_name"), "verify": _flag(extras.get("verify"))}
    options = {
        "key": connection.login,
        "secret": connection.password,
        "token": extras.get("aws_session_token"),
        "endpoint_url": extras.get("endpoint_url"),
        "anon": _flag(extras.get("anonymous")) or None,
        "client_kwargs": {name: value for name, value in client.items() if value is not None} or None,
    }
    if style := extras.get("addressing_style"):
        options["config_kwargs"] = {"s3": {"addressing_style": style}}
    return {name: value for name, value in options.items() if value not in (None, "")}


def _flag(value: Any) -> Any:
    """Return a JSON or a written truth value as one; `verify` may be a file of certificates, too."""
    return {"true": True, "false": False}.get(str(value).lower(), value)


def _mask(*secrets: str | None) -> None:
    from airflow.sdk.log import mask_secret

    for secret in secrets:
        if secret:
            mask_secret(secret)
