"""One form of an ONNX graph, so that the same model is the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto


def normalised(model: ModelProto) -> ModelProto:
    """Without what varies between machines or runs, or misleads later tools; changed in place.

    Stack traces, module paths and doc strings name files of the machine. value_info that exporters write for
    initializers goes stale as soon as a quantizer transposes a weight.
    """
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        for field, value in list(message.ListFields()):
            if field.name in ("metadata_props", "doc_string"):
                message.ClearField(field.name)
            elif field.type == field.TYPE_MESSAGE and field.message_type.name != "TensorProto":
                waiting.extend(value if field.is_repeated else [value])
    model.graph.ClearField("value_info")
    for tensor in model.graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    return model


def with_sorted_weights(model: ModelProto) -> ModelProto:
    """Initializers in order of their names; rewriting tools add them in an order of their own. In place."""
    ordered = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(ordered)
    return model
