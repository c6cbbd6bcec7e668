"""The fixture that gives the images of real models to the tests of a cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.engine.deployment.cluster.served import Served, missing_image, push, write_kind

if TYPE_CHECKING:
    from pathlib import Path


class Models:
    """Images by the kind of model, each built when it is first asked for: `models["good"].image`."""

    def __init__(self, registry: str, folder: Path) -> None:
        self.registry, self._folder = registry, folder
        self._made: dict[str, Served] = {}

    def __getitem__(self, kind: str) -> Served:
        if kind not in self._made:
            self._made[kind] = push(self.registry, kind, write_kind(self._folder / kind, kind))
        return self._made[kind]

    @property
    def missing(self) -> str:
        """A reference by digest that no registry has."""
        return missing_image(self.registry)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    registry = os.environ.get("TESTBED_REGISTRY")
    if not registry:
        pytest.skip("no TESTBED_REGISTRY: needs a registry that the nodes pull from, with python:3.11-slim")
    return Models(registry, tmp_path_factory.mktemp("models"))
