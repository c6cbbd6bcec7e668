"""Reads a folder of the transformers library: which files count and what model they are. Reads no weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import file_sha256
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.json_file import read_json
from airflow_model_deploy.engine.models.transformers_library import check_config
from airflow_model_deploy.engine.models.transformers_model import Pooling

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG, WEIGHTS, INDEX, MODULES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "modules.json",
)
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model",
    "sentence_bert_config.json", "chat_template.jinja",
)  # fmt: skip
_POOLING: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
}  # fmt: skip


@dataclass(frozen=True)
class TransformersFolder:
    """What a folder holds.

    Args:
        model: the folder with config and weights; in old sentence-transformers folders it lies one deeper.
        files: all that counts, by its path below the outer folder.
        config: config.json.
        pooling: of a sentence-transformers folder, else None.
        normalize: whether that ends in vectors of length 1.
    """

    model: Path
    files: dict[str, Path]
    config: dict[str, Any]
    pooling: Pooling | None
    normalize: bool

    @property
    def sha256(self) -> str:
        """Of the lines "<sha256>  <path>" of all files that count, sorted by path, as sha256sum writes them."""
        listing = "".join(f"{file_sha256(path)}  {name}\n" for name, path in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()

    @property
    def tokenizer(self) -> dict[str, Path]:
        """The tokenizer's files by name."""
        return {path.name: path for path in self.files.values() if path.name in TOKENIZER}


def read_transformers_folder(folder: Path) -> TransformersFolder:
    """Find and check a folder's files; reads no weights and needs no library.

    Raises:
        InputError: it is no model folder, has no safetensors, or would need code of its own.
    """
    files: dict[str, Path] = {}
    inner, pooling, normalize = "", None, False
    if (folder / MODULES).is_file():
        inner, pooling_folder, normalize = _modules(folder)
        files[MODULES] = folder / MODULES
        if pooling_folder is not None:
            name = str(PurePosixPath(pooling_folder, CONFIG))
            files[name] = folder / name
            pooling = _pooling(folder / name)
    model = folder / inner
    if not (model / CONFIG).is_file():
        raise InputError(
            f"the folder {folder} is no transformers model",
            found=", ".join(sorted(path.name for path in model.iterdir())[:8])
            if model.is_dir()
            else "no folder",
            wanted="config.json and model.safetensors, as save_pretrained writes them",
            remedy="Give the folder that model.save_pretrained(folder) wrote.",
        )
    config = read_json(model / CONFIG)
    check_config(config)
    _refuse_adapter(model)
    for name in (CONFIG, *_weights(model)):
        files[str(PurePosixPath(inner, name))] = model / name
    for place in dict.fromkeys(("", inner)):
        files |= {
            str(PurePosixPath(place, name)): folder / place / name
            for name in TOKENIZER
            if (folder / place / name).is_file()
        }
    return TransformersFolder(model, files, config, pooling, normalize)


def wanted_files(listed: list[str], read: Callable[[str], Any]) -> list[str]:
    """Of the files of a remote folder, those to fetch.

    Args:
        listed: all files below it, by relative path.
        read: reads one of them as JSON.
    """
    inner = [""]
    if MODULES in listed:
        inner += [_plain(str(one.get("path", ""))) for one in read(MODULES)]
    names = (CONFIG, INDEX, MODULES, "adapter_config.json", *TOKENIZER)
    return [
        path
        for path in listed
        if str(PurePosixPath(path).parent).removeprefix(".") in inner
        and (PurePosixPath(path).name in names or path.endswith(".safetensors"))
    ]


def _modules(folder: Path) -> tuple[str, str | None, bool]:
    """(folder of the transformer, folder of the pooling, normalize) of a sentence-transformers folder."""
    try:
        listed = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / MODULES}", found=f"no JSON ({error})", wanted="a JSON list") from error
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InputError(f"{folder / MODULES}", found=type(listed).__name__, wanted="a JSON list of modules")
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in listed]
    places = [_plain(str(one.get("path", ""))) for one in listed]
    if kinds[:1] != ["Transformer"] or kinds[1:] not in ([], ["Pooling"], ["Pooling", "Normalize"]):
        raise InputError(
            f"{folder / MODULES}",
            found=" -> ".join(kinds),
            wanted="Transformer -> Pooling, with or without -> Normalize",
            remedy="Bring the weights with a factory of yours.",
        )
    return places[0], places[1] if len(kinds) > 1 else None, len(kinds) > 2


def _pooling(path: Path) -> Pooling:
    value = read_json(path)
    modes = [name for name, on in value.items() if name.startswith("pooling_mode_") and on is True]
    named = value.get("pooling_mode")  # as newer versions write it
    if isinstance(named, str) and named in _POOLING.values():
        return named  # type: ignore[return-value]
    if named is None and len(modes) == 1 and modes[0] in _POOLING:
        return _POOLING[modes[0]]
    raise InputError(
        f"the pooling in {path}",
        found=named or ", ".join(modes) or "none",
        wanted="one of mean, cls, max",
        remedy="Bring the weights with a factory of yours.",
    )


def _weights(model: Path) -> list[str]:
    """The weights' files: one, or an index with its shards."""
    if (model / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (model / INDEX).is_file():
        others = sorted(
            path.name for path in model.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5", ".ckpt")
        )
        raise InputError(
            f"the folder {model} has no safetensors",
            found=", ".join(others[:4]) or "no weights",
            wanted=f"{WEIGHTS}, or {INDEX} and its shards",
            remedy="Pickled weights are never read. Where they are trusted, load and save them again:"
            " AutoModel.from_pretrained(folder).save_pretrained(folder), with the class of the model's head.",
        )
    names = read_json(model / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{model / INDEX}", found="no weight_map", wanted="tensor -> file")
    shards = sorted({_plain(str(name)) for name in names.values()})
    missing = [name for name in shards if not (model / name).is_file() or not name.endswith(".safetensors")]
    if missing:
        raise InputError(
            f"the shards of {model / INDEX}",
            found=f"{len(missing)} of {len(shards)} missing, or no safetensors ({', '.join(missing[:3])})",
            wanted="each beside the index",
            remedy="Get the folder again.",
        )
    return [INDEX, *shards]


def _plain(name: str) -> str:
    """A path that stays in its folder."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or len(parts) > 1:
        raise InputError("a path in the model's folder", found=name, wanted="the name of something in it")
    return name


def _refuse_adapter(model: Path) -> None:
    if (model / "adapter_config.json").is_file():
        raise InputError(
            f"the folder {model} holds an adapter",
            found="adapter_config.json",
            wanted="a whole model",
            remedy="Merge it first: model.merge_and_unload().save_pretrained(folder).",
        )
