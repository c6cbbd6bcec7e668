from __future__ import annotations

from tests.engine.containers.support import base, client, engine, registry, repository

__all__ = ["base", "client", "engine", "registry", "repository"]
