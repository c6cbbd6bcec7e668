"""The places where a release can run."""

from __future__ import annotations
