"""What each pod of ours says of itself so that Pod Security `restricted` admits it; knows no other field of a pod."""

from __future__ import annotations

from typing import Any

USER = 65532  # the user and the group of our images


def pod_security() -> dict[str, Any]:
    """Return a pod's securityContext; what is mounted belongs to the images' own group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return the securityContext of each of its containers."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
