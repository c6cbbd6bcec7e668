"""Gates that are switched off stay off on their way to the step, whose default is a gate."""

from __future__ import annotations

import pytest

import airflow_model_deploy as md


@pytest.mark.parametrize("off", [None, "", "None"])
def test_a_gate_that_is_none_is_no_gate(off, context):
    gates = md.GateConfig(max_quality_drop=off, min_speedup="2")
    spec = md.EvaluateModelOperator(task_id="test", servable={}, baseline={}, gates=gates).full_spec(context)
    assert spec["max_quality_drop"] is None
    assert spec["min_speedup"] == "2"
