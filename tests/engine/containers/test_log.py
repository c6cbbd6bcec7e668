from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.containers import ensure_image, tail
from tests.engine.containers.support import container

if TYPE_CHECKING:
    from docker import APIClient


@pytest.mark.docker
def test_the_last_lines_of_a_container(client: APIClient, base: str) -> None:
    program = "import sys; [print(word, file=sys.stderr) for word in ('one', 'two', 'three')]"
    ensure_image(client, base, log=print)
    with container(client, base, ["python3", "-uc", program]) as talking:
        assert tail(client, talking) == "none"
        client.start(talking)
        client.wait(talking)
        assert sorted(tail(client, talking, 2).split()) == ["three", "two"]
    assert tail(client, talking) == "none"
