"""What a request asks for: its outputs, in JSON or as bytes, and its parameters; knows no values."""

from __future__ import annotations

from typing import Any

from .request import RequestError

# What other servers do with these is an answer of another kind: silence would be a wrong answer.
_UNSUPPORTED = {
    "classification": "classification",
    "shared_memory_region": "shared memory",
    "sequence_id": "a sequence",
}

_NONE: dict[str, Any] = {}


def wanted_outputs(
    document: dict[str, Any], all_binary: Any, declared: tuple[str, ...]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names that are asked for, and those of them that go back as bytes.

    Args:
        document: the request's JSON object.
        all_binary: its parameter binary_data_output.
        declared: the model's outputs.

    Raises:
        RequestError: naming the field that is wrong.
    """
    _refuse_unless_bool(all_binary, "the body: 'binary_data_output'")
    records = document.get("outputs")
    if records is None or records == []:
        return declared, frozenset(declared if all_binary else ())
    if type(records) is not list or not all(type(record) is dict for record in records):
        raise RequestError("'outputs': wanted a list of objects with 'name'")
    names = tuple(record.get("name") for record in records)
    binary = []
    for name, record in zip(names, records, strict=True):
        if name not in declared:
            raise RequestError(f"output {name!r}: the model has no such output; it gives {list(declared)}")
        wanted = parameters_of(record, f"output {name!r}").get("binary_data", all_binary)
        _refuse_unless_bool(wanted, f"output {name!r}: 'binary_data'")
        if wanted:
            binary.append(name)
    if len(set(names)) != len(names):
        raise RequestError(f"'outputs': a name appears twice: {list(names)}")
    return names, frozenset(binary)


def parameters_of(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the record's parameters.

    Raises:
        RequestError: they are no object, or ask for something that isn't done here.
    """
    parameters = record.get("parameters")
    if parameters is None:
        return _NONE
    if type(parameters) is not dict:
        raise RequestError(f"{where}: 'parameters': wanted an object")
    for name, words in _UNSUPPORTED.items():
        # 0 is how clients say "none".
        if parameters.get(name):
            raise RequestError(f"{where}: {words} isn't supported here; leave the parameter {name!r} out")
    return parameters


def _refuse_unless_bool(value: Any, what: str) -> None:
    if type(value) is not bool:
        raise RequestError(f"{what}: found {value!r}, wanted true or false")
