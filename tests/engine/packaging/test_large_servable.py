"""A model beyond the 2 GB at which protobuf ends, packaged and served."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from airflow_model_deploy.engine.models import file_size, onnx_precision, read_signature
from airflow_model_deploy.engine.packaging import write_servable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS, WIDTH = 550_000, 1024
PROGRAM = """
import json, re, sys
from pathlib import Path
import numpy as np
from airflow_model_deploy.engine.serving import servable
from airflow_model_deploy.engine.serving.session import open_session
session = open_session(servable.load(Path(sys.argv[1])))
answer = session.run({"row": np.array([549_999, 7])}, ("y",))["y"]
# Not ru_maxrss: that begins with the memory of whoever started this process.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"answer": answer[:, 0].tolist(), "peak": peak}))
"""


def embedding(path: Path) -> Path:
    """Y = table[row], the table in a file with holes: all zeros but the last row's first number."""
    size = 4 * ROWS * WIDTH
    with path.with_name("table.bin").open("wb") as stream:
        stream.truncate(size)
        stream.seek(4 * (ROWS - 1) * WIDTH)
        stream.write(b"\x00\x00\x80\x3f")
    table = TensorProto(name="table", data_type=1, dims=[ROWS, WIDTH], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "table.bin"), ("offset", "0"), ("length", str(size))):
        table.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "row"], ["y"])], "embedding",
        [helper.make_tensor_value_info("row", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])], [table],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep


@pytest.mark.slow
def test_a_model_of_more_than_two_gigabytes_is_packaged_and_served(room: Path) -> None:
    source = embedding(room / "embedding.onnx")
    assert file_size(source) > 2 << 30
    write_servable(
        room / "servable", model=source, name="embedding", version="1", signature=read_signature(source),
        session={}, precision=onnx_precision(source), golden=None,
    )  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, str(room / "servable")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["answer"] == [1.0, 0.0]
    assert found["peak"] < 300e6  # weights are mapped, by the check of them and by ONNX Runtime
