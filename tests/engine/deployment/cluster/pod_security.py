"""The Pod Security Standard `restricted` (with `baseline`, which it includes), after the published rules."""

from __future__ import annotations

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod):
    """What `restricted` would refuse in a pod's spec."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {v['name']}" for v in pod.get("volumes", ()) if not (set(v) - {"name"}) <= VOLUMES]
    shared = pod.get("securityContext", {})
    if shared.get("sysctls"):
        found.append("sysctls")
    containers = [*pod.get("initContainers", ()), *pod["containers"], *pod.get("ephemeralContainers", ())]
    return found + [f"{one['name']}: {what}" for one in containers for what in _container(one, shared)]


def _container(container, shared):
    own = container.get("securityContext", {})
    either = {**shared, **own}
    capabilities = own.get("capabilities", {})
    rules = {
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "privileged": not own.get("privileged"),
        "runAsNonRoot": either.get("runAsNonRoot") is True,
        "runAsUser": either.get("runAsUser") != 0,
        "seccompProfile": either.get("seccompProfile", {}).get("type") in PROFILES,
        "drop ALL": "ALL" in capabilities.get("drop", ()),
        "add": set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "procMount": own.get("procMount", "Default") == "Default",
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
    }
    return [name for name, holds in rules.items() if not holds]
