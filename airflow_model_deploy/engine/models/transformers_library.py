"""Configs and classes of the transformers library: which may be used. Code that a model brings along never is."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Task = Literal["auto", "embedding", "classification", "base", "causal-lm"]

_AUTO_CLASS = {
    "embedding": "MODEL_MAPPING",
    "base": "MODEL_MAPPING",
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
}
# How attention is computed is ours to say: other ways don't export, and some fetch their code from a hub.
_NOT_KEPT = (
    "_attn_implementation", "attn_implementation", "_attn_implementation_internal", "_attn_implementation_autoset",
    "_experts_implementation", "experts_implementation", "_name_or_path", "name_or_path", "transformers_version",
    "dtype", "torch_dtype",
)  # fmt: skip


def library() -> Any:
    """The transformers library, or what to install."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "a transformers model needs the library transformers",
            found=f"{type(error).__name__}: {error}",
            wanted="transformers 5 or newer where the step runs",
            remedy="pip install 'airflow-model-deploy[hf]'",
        ) from error


def read_config(config: dict[str, Any]) -> Any:
    """A config object of the library's own class; what would bring code or quantized weights along is refused."""
    check_config(config)
    kept = {name: value for name, value in config.items() if name not in _NOT_KEPT}
    known = library().CONFIG_MAPPING
    if kept.get("model_type") not in known:
        raise InputError(
            "model_type in config.json",
            found=kept.get("model_type"),
            wanted=f"one that transformers {library().__version__} knows",
            remedy="Install a version of transformers that knows it, or bring the weights with a factory of yours.",
        )
    strict = importlib.import_module("huggingface_hub.errors").StrictDataclassError
    try:
        parsed = known[kept["model_type"]].from_dict(kept)
    except (strict, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            "config.json",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            wanted=f"the config of a {kept['model_type']} model",
            remedy="Get the folder again, or install the version of transformers that wrote it.",
        ) from error
    if parsed.is_encoder_decoder:
        raise InputError(
            f"the model_type {kept['model_type']}",
            found="an encoder with a decoder",
            wanted="a model that answers input_ids in one pass",
            remedy="Bring the weights with a factory of yours.",
        )
    parsed.use_cache = False
    return parsed


def check_config(config: dict[str, Any]) -> None:
    """Refuse what is no plain config of a model that the library itself has."""
    if "auto_map" in config:
        raise InputError(
            "config.json names code of the model's own",
            found=f"auto_map {config['auto_map']}",
            wanted="a model whose class the transformers library has",
            remedy="Code that comes with a model is never run; bring the weights with a factory of yours.",
        )
    if config.get("quantization_config"):
        raise InputError(
            "the weights are quantized already",
            found=f"quantization_config {str(config['quantization_config'])[:100]}",
            wanted="float32, float16 or bfloat16 weights",
            remedy="Take in the original model; quantizing is a later step.",
        )


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what differs from one saving to the next."""
    return {name: value for name, value in sorted(config.items()) if name not in _NOT_KEPT}


def choose_class(config: dict[str, Any], task: Task) -> str:
    """The class for a task; for "auto" the one that the config names."""
    if task == "auto":
        named = config.get("architectures")
        if not isinstance(named, list) or not named or not isinstance(named[0], str):
            raise InputError(
                "architectures in config.json",
                found=named,
                wanted="the name of a model class",
                remedy="Say what the model is for: task 'embedding', 'classification', 'base' or 'causal-lm'.",
            )
        return named[0]
    mapping = getattr(library(), _AUTO_CLASS[task])
    parsed = read_config(config)
    if type(parsed) not in mapping:
        raise InputError(
            f"task {task!r} for a {config.get('model_type')} model",
            found="no class for it in transformers",
            wanted="another task",
            remedy="Leave the task at 'auto', or bring the weights with a factory of yours.",
        )
    found = mapping[type(parsed)]
    return str((found[0] if isinstance(found, tuple) else found).__name__)


def model_class(architecture: str) -> Any:
    """A text model's class by its name in the library."""
    transformers = library()
    found: Any = getattr(transformers, architecture, None) if not architecture.startswith("_") else None
    if not _is_model(found, transformers):
        raise InputError(
            "the model's class",
            found=architecture,
            wanted=f"a model class of transformers {transformers.__version__}",
            remedy="Install a version of transformers that has it, or bring the weights with a factory of yours.",
        )
    if found.main_input_name != "input_ids":
        raise InputError(
            f"the model class {architecture}",
            found=f"a model of {found.main_input_name}",
            wanted="a model of texts, which takes input_ids",
            remedy="Bring the weights with a factory of yours.",
        )
    return found


def _is_model(value: Any, transformers: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, transformers.PreTrainedModel)


def class_options(cls: Any) -> dict[str, Any]:
    """What a class is built with: without a pooling layer, whose output nobody reads, where that can be said."""
    takes = inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def token_inputs(config: dict[str, Any], *, samples: int = 2, length: int = 16) -> dict[str, np.ndarray]:
    """Token numbers of the model's vocabulary, drawn from a fixed seed; the second text is shorter than the first."""
    import numpy as np

    parsed = read_config(config)
    length = min(length, int(getattr(parsed, "max_position_embeddings", length) or length) // 2)
    ids = np.random.default_rng(0).integers(1, parsed.vocab_size, (samples, length), dtype=np.int64)
    mask = np.ones_like(ids)
    mask[1::2, -(length // 4) :] = 0
    return {"input_ids": ids, "attention_mask": mask}
