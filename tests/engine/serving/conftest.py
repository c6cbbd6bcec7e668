from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.serving.servables import Server, running, write_servable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package")
def linear_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_servable(tmp_path_factory.mktemp("linear") / "servable")


@pytest.fixture(scope="package")
def server(linear_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that only ask it."""
    work = tmp_path_factory.mktemp("server")
    with running(linear_folder, work, "--max-body-bytes", "10000") as server:
        yield server
