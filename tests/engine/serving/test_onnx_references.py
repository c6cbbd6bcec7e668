from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.onnx_file import external_locations
from airflow_model_deploy.engine.serving import onnx_references
from airflow_model_deploy.engine.serving.onnx_references import (
    BadOnnxError,
    ExternalData,
    Function,
    Operator,
    references,
)
from airflow_model_deploy.engine.serving.onnx_rules import DOMAINS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Found = set[ExternalData | Operator | Function]


def external(name: str, location: str | None = None, offset: int = 0, length: int | None = 16) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    values = {"location": location or f"{name}.bin", "offset": offset, "length": length}
    for key, value in values.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def inner_graph(name: str) -> onnx.GraphProto:
    nodes = [helper.make_node("Inner", [], [f"{name}_y"], domain=f"ops.{name}")]
    outputs = [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [4])]
    return helper.make_graph(nodes, name, [], outputs, [external(f"in_{name}")])


@pytest.fixture(scope="module")
def everywhere() -> onnx.ModelProto:
    """A model with external data and operators wherever onnx.proto has a place for them."""
    branch = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner_graph("then"), else_branch=inner_graph("else"))],
        "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )  # fmt: skip
    sparse = helper.make_sparse_tensor(external("sparse_values"), external("sparse_indices"), [8])
    several = helper.make_node("Several", [], ["s"], domain="ops.several")
    several.attribute.add(name="ts", type=onnx.AttributeProto.TENSORS).tensors.append(external("in_list"))
    several.attribute.add(name="gs", type=onnx.AttributeProto.GRAPHS).graphs.append(inner_graph("listed"))
    several.attribute.add(name="ss", type=onnx.AttributeProto.SPARSE_TENSORS).sparse_tensors.append(
        helper.make_sparse_tensor(external("list_values"), external("list_indices"), [8])
    )
    nodes = [
        helper.make_node("Loop", ["n", "c"], ["y"], body=branch),
        helper.make_node("Constant", [], ["k"], value=external("constant")),
        helper.make_node("Constant", [], ["p"], sparse_value=sparse),
        several,
    ]
    graph = helper.make_graph(
        nodes, "everywhere", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [external("weight", "folder/weights.bin", 4096, 64), external("rest", length=None)],
        sparse_initializer=[helper.make_sparse_tensor(external("values"), external("indices"), [8])],
    )  # fmt: skip
    function = helper.make_function(
        "own.domain", "Own", ["a"], ["b"],
        [helper.make_node("Constant", [], ["b"], value=external("in_function"))], [helper.make_opsetid("", 17)],
    )  # fmt: skip
    made = helper.make_model(
        graph, functions=[function], opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    )
    made.training_info.add(initialization=inner_graph("initial"), algorithm=inner_graph("algorithm"))
    return made


def read(content: bytes, folder: Path) -> Found:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return set(references(path))


def test_nothing_hides(everywhere: onnx.ModelProto, tmp_path: Path) -> None:
    found = read(everywhere.SerializeToString(), tmp_path)
    data = [f for f in found if isinstance(f, ExternalData)]
    wanted = external_locations(everywhere)  # by onnx's own parser
    assert sorted((d.location, d.offset, d.length or 0) for d in data) == sorted(
        (location, offset, length or 0) for location, offset, length in wanted
    )
    assert len(data) == 16
    assert ExternalData("weight", "folder/weights.bin", 4096, 64) in found
    assert ExternalData("rest", "rest.bin", 0, None) in found
    assert Function("own.domain", "Own") in found
    operators = {(f.domain, f.op_type) for f in found if isinstance(f, Operator)}
    inner = {(f"ops.{name}", "Inner") for name in ("then", "else", "listed", "initial", "algorithm")}
    assert operators == inner | {("", "Loop"), ("", "If"), ("", "Constant"), ("ops.several", "Several")}


def test_onnx_s_own_domain_has_two_names(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"], domain="ai.onnx")], "g", [], [])
    assert read(helper.make_model(graph).SerializeToString(), tmp_path) == {Operator("", "Abs")}


def test_the_domains_are_those_that_the_installed_runtime_has_kernels_for() -> None:
    kernels = ort_state.get_all_opkernel_def()
    assert {k.domain for k in kernels if k.provider == "CPUExecutionProvider"} == DOMAINS


def test_damaged_files_are_refused_or_tell_no_less_than_protobuf_finds(
    everywhere: onnx.ModelProto, tmp_path: Path
) -> None:
    """Whatever a parser of protobuf makes of changed bytes, no reference may be hidden from this one."""
    content = everywhere.SerializeToString()
    chance, parsed = random.Random(0), 0
    for _ in range(2000):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 5))):
            place = chance.randrange(len(changed))
            what = chance.randrange(3)
            if what == 0:
                changed[place] = chance.randrange(256)
            elif what == 1:
                del changed[place : place + chance.randrange(1, 9)]
            else:
                changed[place:place] = chance.randbytes(chance.randrange(1, 5))
        try:
            found = read(bytes(changed), tmp_path)
        except BadOnnxError:
            continue
        try:
            model = onnx.ModelProto.FromString(bytes(changed))
            wanted = external_locations(model)
        except (DecodeError, InputError):
            continue
        parsed += 1
        assert {text(w[0]) for w in wanted} <= {f.location for f in found if isinstance(f, ExternalData)}
        operators = {(text(n.domain), text(n.op_type)) for n in nodes(model.graph)}
        assert {o for o in operators if o[0] not in ("", "ai.onnx")} <= {
            (f.domain, f.op_type) for f in found if isinstance(f, Operator)
        }
    assert parsed > 100


def text(value: str | bytes) -> str:
    """Python's protobuf gives text that is none as bytes."""
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


def test_a_file_that_was_cut_off_anywhere_is_refused(everywhere: onnx.ModelProto, tmp_path: Path) -> None:
    content = everywhere.graph.SerializeToString()
    whole = b"\x3a" + varint(len(content)) + content
    assert read(whole, tmp_path)
    for end in range(0, len(whole), 3):
        with pytest.raises(BadOnnxError):
            read(whole[:end], tmp_path)


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(key: str, value: str) -> bytes:
    return field(13, field(1, key.encode()) + field(2, value.encode()))


def with_tensor(*parts: bytes) -> bytes:
    return field(7, field(5, field(8, b"w") + b"".join(parts)))


LOCATION = entry("location", "w.bin")
EXTERNAL = b"\x70\x01"


@pytest.mark.parametrize(
    "content",
    [
        with_tensor(LOCATION, EXTERNAL),
        with_tensor(EXTERNAL, LOCATION),
        with_tensor(LOCATION),  # another reader may have another default
        with_tensor(LOCATION, EXTERNAL, b"\x70\x00"),  # the last one counts elsewhere
        with_tensor(LOCATION, b"\x70\x81\x80\x80\x80\x80\x01"),  # 1, once it is cut off to 32 bits
        with_tensor(LOCATION, b"\xf0\x80\x80\x80\x00\x01"),  # the field's number, written longer than needed
        field(7, b"") + with_tensor(LOCATION, EXTERNAL),  # two parts of one graph
        field(7, b"\xaa\x80\x00" + field(5, LOCATION + EXTERNAL + field(8, b"w"))[1:]),
    ],
)
def test_what_is_written_oddly_is_found(content: bytes, tmp_path: Path) -> None:
    assert read(content, tmp_path) == {ExternalData("w", "w.bin", 0, None)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a model", "is no ONNX model"),
        (field(2, b"producer"), "it has no graph"),
        # 7 once it is cut off to 32 bits, as protobuf does
        (b"\xba\x80\x80\x80\x10\x00" + with_tensor(LOCATION), "more than 32 bits"),
        (field(7, b"\x0b\x0c"), "wire type 3"),
        (b"\x00\x00", "cut off or damaged at byte 0"),
        (b"\x3a\x05abc", "cut off or damaged"),
        (b"\xff" * 12, "more than 10 bytes"),
        (with_tensor(EXTERNAL), "'w' with no location"),
        (with_tensor(EXTERNAL, entry("location", "")), "with no location"),
        (with_tensor(EXTERNAL, LOCATION, entry("location", "/etc/passwd")), "a key given twice"),
        (with_tensor(LOCATION, entry("basepath", "/etc")), r"the keys \['basepath'\]"),
        (with_tensor(LOCATION, entry("prepacked_0", "x|0;4;1")), r"the keys \['prepacked_0'\]"),
        (with_tensor(LOCATION, entry("offset", "-4")), "offset '-4', wanted a whole number"),
        (with_tensor(LOCATION, entry("offset", "0x10")), "offset '0x10'"),
        (with_tensor(LOCATION, entry("offset", "\u0663")), "offset '\u0663'"),  # a digit, to int()
        (with_tensor(LOCATION, entry("length", "9" * 30)), "length '9{30}'"),
        (with_tensor(*[entry(f"checksum{i}", "") for i in range(17)]), "more than 16 entries"),
        (with_tensor(entry("location", "x" * 5000)), "a name of 5000 bytes"),
    ],
)
def test_what_no_tool_writes_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadOnnxError, match=message):
        read(content, tmp_path)


def test_graphs_in_graphs_end_somewhere(tmp_path: Path) -> None:
    content = b""
    for _ in range(2000):
        content = field(1, field(5, field(6, content)))
    with pytest.raises(BadOnnxError, match="nested more than 100 deep"):
        read(field(7, content), tmp_path)


def test_more_fields_than_any_graph_has_end_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_references, "FIELDS", 1000)
    with pytest.raises(BadOnnxError, match="more than 1000 fields"):
        read(field(7, b"\x0a\x00" * 2000), tmp_path)


def test_a_forest_of_trees_is_read_in_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_references, "FIELDS", 1000)  # its numbers are not read one by one
    count = 100_000
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml",
        nodes_truenodeids=list(range(count)), nodes_values=[0.5] * count, after=numpy_helper.from_array(np.ones(2)),
    )  # fmt: skip
    graph = helper.make_graph([trees], "g", [], [], [external("w")])
    found = read(helper.make_model(graph).SerializeToString(), tmp_path)
    assert found == {Operator("ai.onnx.ml", "TreeEnsembleRegressor"), ExternalData("w", "w.bin", 0, 16)}


def test_gigabytes_of_weights_are_not_read(tmp_path: Path) -> None:
    """A file of 1.5 GB (with holes, so that it takes no room) costs next to nothing, in time as in memory."""
    size = 1_500_000_000
    last = field(5, EXTERNAL + LOCATION)
    tensor = varint(9 << 3 | 2) + varint(size)
    before = varint(5 << 3 | 2) + varint(len(tensor) + size) + tensor
    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.write(varint(7 << 3 | 2) + varint(len(before) + size + len(last)) + before)
        stream.seek(size, 1)
        stream.write(last)
    program = (
        "import resource, sys, time\nfrom pathlib import Path\n"
        "from airflow_model_deploy.engine.serving.onnx_references import references\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = list(references(Path(sys.argv[1])))\n"
        "more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "assert [f.location for f in found] == ['w.bin'] and more < 16_000, more\n"
        "assert time.process_time() < 2"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
