"""User code: where the source behind an import path lies, what it pulls in, and how it is imported in a step.

Import paths come from the author of a Dag. Source is found without importing it, so that asking costs nothing.
"""

from __future__ import annotations

import ast
import importlib
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LIMIT_BYTES = 20 << 20
_SHAPE = "'package.module:callable'"


@dataclass(frozen=True)
class UserFunction:
    """A callable of the Dag author's, by import path, with keyword arguments for each of its calls.

    Args:
        path: "package.module:callable".
        options: keyword arguments, JSON values only.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        module, _, name = self.path.partition(":")
        if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise InputError(
                "an import path is malformed", found=self.path, wanted=_SHAPE, remedy="Correct it in the Dag."
            )

    @property
    def module(self) -> str:
        """Return the part before the colon."""
        return self.path.partition(":")[0]


@dataclass(frozen=True)
class UserCode:
    """The source files behind some import paths.

    Args:
        files: each file by its path below the folder that goes on `sys.path`.
        installed: top-level modules that the source imports and that an installed distribution provides.
    """

    files: dict[str, Path]
    installed: tuple[str, ...]


def collect_functions(value: Any) -> Iterator[UserFunction]:
    """Find every UserFunction inside a spec."""
    if isinstance(value, UserFunction):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from collect_functions(getattr(value, item.name))
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from collect_functions(element)


def locate(functions: Iterable[UserFunction]) -> UserCode:
    """Find the source behind import paths and, through its import statements, the source that it needs.

    A top-level package counts as a whole. Modules of the standard library are left out; those that an installed
    distribution provides are named, and must be installed where the step runs.
    """
    wanted = {function.module.partition(".")[0]: function.path for function in functions}
    files: dict[str, Path] = {}
    installed: set[str] = set()
    queue, seen = list(wanted), set(wanted)
    while queue:
        name = queue.pop()
        spec = _find(name)
        if spec is None:
            if name in wanted:
                raise InputError(
                    f"the module of {wanted[name]} can't be found",
                    found=f"no {name!r} on the Python path",
                    wanted="a module beside the Dag, or an installed one",
                    remedy="Put it into the Dag folder, or install it where tasks run.",
                )
            continue
        if _is_installed(name, spec):
            installed.add(name)
            continue
        sources = _sources(name, spec)
        files.update(sources)
        for imported in _imports(sources.values()) - seen:
            seen.add(imported)
            queue.append(imported)
    _check_size(files)
    return UserCode(files=dict(sorted(files.items())), installed=tuple(sorted(installed)))


def resolve(path: str) -> Callable[..., Any]:
    """Import "package.module:callable"; every failure says which part of the path it is about."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module is the user's code: importing it may raise anything
        raise InputError(
            f"the module of {path} can't be imported",
            found=f"{type(error).__name__}: {error}",
            wanted="a module that imports where the step runs",
            remedy="Install what is missing there, or correct the import path in the Dag.",
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(
            f"{path} names nothing that can be called",
            found=f"{type(found).__name__} in {module_name}",
            wanted=_SHAPE,
            remedy="Correct the import path in the Dag.",
        )
    return found  # type: ignore[no-any-return]


def _find(name: str) -> ModuleSpec | None:
    if name in sys.stdlib_module_names:
        return None
    return PathFinder.find_spec(name)


def _is_installed(name: str, spec: ModuleSpec) -> bool:
    if name == "airflow_model_deploy":  # the engine itself, also where it is installed in editable mode
        return True
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(part in ("site-packages", "dist-packages") for place in places for part in Path(place).parts)


def _sources(name: str, spec: ModuleSpec) -> dict[str, Path]:
    if spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        return {
            f"{name}/{path.relative_to(folder).as_posix()}": path
            for path in folder.rglob("*")
            if path.is_file()
            and not any(p.startswith((".", "__pycache__")) for p in path.relative_to(folder).parts)
        }
    if spec.origin and spec.origin.endswith(".py"):
        return {f"{name}.py": Path(spec.origin)}
    raise InputError(
        f"the module {name} has no source that a step could take along",
        found=str(spec.origin),
        wanted="a .py file, a package folder or an installed distribution",
        remedy="Install it where tasks run.",
    )


def _imports(files: Iterable[Path]) -> set[str]:
    names: set[str] = set()
    for path in files:
        if path.suffix != ".py":
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError as error:
            raise InputError(
                f"{path} is no valid Python", found=str(error), remedy="Correct the file."
            ) from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def _check_size(files: dict[str, Path]) -> None:
    size = sum(path.stat().st_size for path in files.values())
    if size > _LIMIT_BYTES:
        largest = max(files.items(), key=lambda item: item[1].stat().st_size)[0]
        raise InputError(
            "the user code is too large to travel with a step",
            found=f"{size} bytes, most of them perhaps in {largest}",
            wanted=f"at most {_LIMIT_BYTES} bytes",
            remedy="Keep data out of the package, or install the package where tasks run.",
        )
