from __future__ import annotations

from tests.engine.served import command, golden, served

__all__ = ["command", "golden", "served"]
