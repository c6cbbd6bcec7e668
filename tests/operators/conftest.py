from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.fixture
def context():
    """What an operator's execute reads of Airflow's context."""
    ti = SimpleNamespace(dag_id="dag", run_id="run 1", task_id="task", map_index=-1, try_number=1)
    return {"ti": ti, "outlet_events": {}, "params": {}}
