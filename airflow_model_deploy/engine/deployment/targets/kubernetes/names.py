"""How a service's objects in a cluster are named, labelled and known; the one place that says so."""

from __future__ import annotations

GROUP = "model-deploy.io"
SERVICE, REVISION = f"{GROUP}/service", f"{GROUP}/revision"
DECISION, IMAGE = f"{GROUP}/decision", f"{GROUP}/image"
NAME_LABEL = "app.kubernetes.io/name"
MANAGED_BY = ("app.kubernetes.io/managed-by", "model-deploy")
# Field managers: what we apply, and how many replicas we set; the second never fights an autoscaler in an apply.
MANAGER, SCALER = "model-deploy", "model-deploy-scale"
PORT = 8080
CONTAINER = "server"
NO_REVISION = "none"


def labels(service: str, revision: str | None = None) -> dict[str, str]:
    """Return the labels of a service's object, or of one of a revision's."""
    key, value = MANAGED_BY
    own = {NAME_LABEL: service, key: value, SERVICE: service}
    return own | ({REVISION: revision} if revision else {})


def revision_name(service: str, revision: str) -> str:
    """Return the name of a revision's Deployment."""
    return f"{service}-{revision}"


def canary_name(service: str) -> str:
    """Return the name of the Service that leads to a candidate behind an HTTPRoute."""
    return f"{service}-canary"


def only(service: str, revision: str | None) -> dict[str, str]:
    """Return the selector of one revision's pods; None: of no pods at all."""
    return {SERVICE: service, REVISION: revision or NO_REVISION}


def every(service: str) -> dict[str, str]:
    """Return the selector of all the service's pods, whatever their revision."""
    return {SERVICE: service}
