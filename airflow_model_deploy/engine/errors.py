"""What can go wrong, told so that the reader can act: the thing, what was found, what was wanted, what to do.

`permanent` says whether the same call could succeed later. Callers retry only what is not permanent.
"""

from __future__ import annotations


class ModelDeployError(Exception):
    """Base of every error that the engine raises on purpose.

    Args:
        thing: what is wrong, named so that it can be found (a path, a field, a tensor).
        found: the value found.
        wanted: the value, or kind of value, wanted.
        remedy: what the reader can do about it, as an imperative sentence.
    """

    permanent = True

    def __init__(
        self, thing: str, *, found: object = None, wanted: object = None, remedy: str | None = None
    ) -> None:
        self.thing, self.found, self.wanted, self.remedy = thing, found, wanted, remedy
        parts = [thing]
        if found is not None:
            parts.append(f"found: {found}")
        if wanted is not None:
            parts.append(f"wanted: {wanted}")
        if remedy is not None:
            parts.append(remedy)
        super().__init__("; ".join(parts))


class InputError(ModelDeployError):
    """A file, a value or a piece of user code that can't be used; the same input fails again."""


class IntegrityError(ModelDeployError):
    """Content that isn't what its digest says."""


class GateError(ModelDeployError):
    """A model that works and is not good enough."""


class RolloutError(ModelDeployError):
    """A release that was not put into service; what served before still serves."""


class UnavailableError(ModelDeployError):
    """Something that is not there now and may be later: a port in use, a server that does not answer."""

    permanent = False
