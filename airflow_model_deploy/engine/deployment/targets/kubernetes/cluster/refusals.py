"""What an API server's refusal means, told from its Status object: which error, and what the reader can do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError, ModelDeployError, RolloutError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_MANAGER = re.compile(r'conflict with "([^"]+)"')
# Servers have answered these with 500, as if they had failed themselves.
_VANISHED, _UNREADABLE = "resourceVersion should not be set on objects to be created", "typed patch object"
_RBAC_DOCS = "https://kubernetes.io/docs/reference/access-authn-authz/rbac/"


class ConflictError(RolloutError):
    """Another field manager owns what we would change, so the server changed nothing.

    Args:
        thing: the object.
        managers: who owns the fields.
        fields: their paths, as the server writes them.
    """

    def __init__(self, thing: str, managers: tuple[str, ...], fields: tuple[str, ...]) -> None:
        self.managers, self.fields = managers, fields
        super().__init__(
            f"{thing} was changed by another writer",
            found=f"{' and '.join(managers)} set {', '.join(fields)}",
            remedy="Undo that change, or hand its fields back (kubectl apply --server-side --force-conflicts"
            " --field-manager=model-deploy), then run it again",
        )


class StaleError(UnavailableError):
    """The object isn't the one that was read any more: read it again and decide anew."""


class ExistsError(UnavailableError):
    """An object of that name is there already, perhaps our own from a call whose answer was lost."""


class AbsentError(InputError):
    """What the call needs isn't there: the object, the namespace, or the kind on this server."""


class ExpiredError(UnavailableError):
    """The server has forgotten the version that a watch would go on from: list again."""


class LostError(UnavailableError):
    """No answer, or one that says "not now"; the server may have done what it was asked nevertheless.

    Args:
        thing: the call.
        found: what happened.
        retry_after_s: how long the server asks us to wait.
        own_fault: the server failed by itself (500), which seldom passes.
    """

    def __init__(
        self, thing: str, *, found: object, retry_after_s: float = 0.0, own_fault: bool = False
    ) -> None:
        self.retry_after_s, self.own_fault = retry_after_s, own_fault
        super().__init__(thing, found=found, remedy="Look whether the API server is well, then run it again")


class ForbiddenError(RolloutError):
    """We may not do that: RBAC, a quota or an admission rule says so, or the server doesn't know us.

    Args:
        thing: the object.
        found: the server's words.
        verb: what RBAC refuses; None where it isn't RBAC that refuses.
        resource: of what kind, as RBAC rules name it.
        namespace: where.
        unknown: the server knows nobody by our credentials.
    """

    def __init__(
        self,
        thing: str,
        *,
        found: str,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        unknown: bool = False,
    ) -> None:
        self.verb, self.resource, self.namespace, self.unknown = verb, resource, namespace, unknown
        remedy = "Change what is asked, or the rule that refuses it"
        if unknown:
            remedy = "Renew the credentials of the connection"
        elif verb:
            where = f"a Role in {namespace}" if namespace else "a ClusterRole"
            remedy = f'Allow the verb "{verb}" on "{resource}" in {where} (see {_RBAC_DOCS})'
        super().__init__(f"{thing}: not allowed", found=found, remedy=remedy)


def refusal(
    thing: str, code: int, status: Mapping[str, Any], *, retry_after_s: float = 0.0
) -> ModelDeployError:
    """The error for an answer that isn't 2xx.

    Args:
        thing: what the call was about.
        code: the HTTP status.
        status: the server's Status object; {"message": text} where it sent none.
        retry_after_s: from the answer's header.
    """
    said = str(status.get("message") or f"HTTP {code}")
    if code == 409:
        return _conflict(thing, said, status)
    if code in (401, 403):
        return _forbidden(thing, said, code)
    if code == 404:
        return AbsentError(thing, found=said, remedy="Look whether the namespace and the kind are there")
    if code == 410:
        return ExpiredError(thing, found=said)
    if code == 500 and _VANISHED in said:
        return StaleError(
            thing, found=f"it isn't there any more ({said})", wanted="the version that was read"
        )
    if code == 429 or (code >= 500 and _UNREADABLE not in said):
        return LostError(thing, found=said, retry_after_s=retry_after_s, own_fault=code == 500)
    return InputError(f"{thing} is refused", found=said)


def _conflict(thing: str, said: str, status: Mapping[str, Any]) -> ModelDeployError:
    details = status.get("details") or {}
    if status.get("reason") == "AlreadyExists":
        return ExistsError(thing, found=said)
    if details.get("kind") == "resourcequotas":  # two creations counted at once: the same call may succeed
        return LostError(thing, found=said)
    causes = [c for c in details.get("causes") or () if c.get("reason") == "FieldManagerConflict"]
    if not causes:
        return StaleError(thing, found=said, wanted="the version that was read")
    named = [m.group(1) for c in causes if (m := _MANAGER.search(str(c.get("message"))))]
    fields = dict.fromkeys(str(c.get("field")) for c in causes)
    return ConflictError(thing, tuple(dict.fromkeys(named)) or ("somebody",), tuple(fields))


def _forbidden(thing: str, said: str, code: int) -> ModelDeployError:
    match = _RBAC.search(said)
    if match is None:
        return ForbiddenError(thing, found=said, unknown=code == 401)
    resource = match["resource"] + (f".{match['group']}" if match["group"] else "")
    return ForbiddenError(
        thing, found=said, verb=match["verb"], resource=resource, namespace=match["namespace"]
    )
