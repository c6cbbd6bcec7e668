"""Loads the weights of a transformers folder into the model that its factory builds. Safetensors only, no network."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.torch_model import fill_model
from airflow_model_deploy.engine.models.transformers_library import (
    Task,
    choose_class,
    class_options,
    library,
    model_class,
    plain_config,
    read_config,
)
from airflow_model_deploy.engine.models.transformers_model import FACTORY, Pooling, build
from airflow_model_deploy.engine.models.usercode import UserFunction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from airflow_model_deploy.engine.models.transformers_folder import TransformersFolder


def load_transformers(found: TransformersFolder, task: Task) -> tuple[nn.Module, UserFunction]:
    """Build a folder's model in float32 with its weights; returns it with the factory that builds it again.

    Args:
        found: from `read_transformers_folder`.
        task: "auto": an embedder where sentence-transformers wrote the folder, else the class that the config names.
            "embedding" of another folder takes the mean of its tokens, not normalized.
    """
    pooling: Pooling | None = found.pooling
    if task == "auto" and pooling is not None:
        task = "embedding"
    architecture = choose_class(found.config, task)
    options: dict[str, Any] = {"config": plain_config(found.config), "architecture": architecture}
    if task == "embedding":
        options |= {"pooling": pooling or "mean", "normalize": found.normalize}
    model = build(**options)
    weights = _loaded(found.model, found.config, architecture, whole=task not in ("embedding", "base"))
    fill_model(model, {f"model.{name}": value for name, value in weights.items()}, source=str(found.model))
    return model.eval(), UserFunction(path=FACTORY, options=options)


def _loaded(folder: Path, config: dict[str, Any], architecture: str, *, whole: bool) -> dict[str, Any]:
    """The weights as the library maps them to its class; `whole`: nothing in the files may be left over."""
    import torch
    from safetensors import SafetensorError

    cls = model_class(architecture)
    try:
        with _quiet():
            model, report = cls.from_pretrained(
                str(folder),
                config=read_config(config),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",
                dtype=torch.float32,
                output_loading_info=True,
                **class_options(cls),
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"the weights in {folder}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            wanted=f"weights that {architecture} can load",
            remedy="Get the folder again, or choose the task that the model was made for.",
        ) from error
    unread = "pooler." if class_options(cls) else None  # the layer that the class was told to leave out
    left = {
        "missing": report["missing_keys"],
        "unexpected": [
            name for name in report["unexpected_keys"] if whole and not (unread and name.startswith(unread))
        ],
    }
    problems = [
        f"{len(names)} {kind} ({', '.join(sorted(names)[:3])})" for kind, names in left.items() if names
    ]
    if problems:
        raise InputError(
            f"the weights in {folder} are not those of {architecture}",
            found="; ".join(problems),
            wanted="each weight of the model",
            remedy="Choose the task that the model was trained for: a base model has no trained head.",
        )
    weights: dict[str, Any] = model.state_dict()
    return weights


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's bars and load reports out of the log: what matters is raised."""
    logging = library().utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
