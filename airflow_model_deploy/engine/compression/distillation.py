"""Teaches a student model what a teacher answers: logits, embeddings, hidden states. Knows no files and no data source.

A teacher answers in eval mode and without gradients. Its answers to all of the data are computed once and kept where
they fit into 256 MiB; else they are computed anew for every batch, which takes a pass through the teacher each.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.compression.hidden_states import Answers, ask, check_modules, projections
from airflow_model_deploy.engine.compression.losses import wider
from airflow_model_deploy.engine.compression.teaching_losses import cosine_loss, hidden_loss, soft_target_loss
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.losses import Loss
    from airflow_model_deploy.engine.compression.training import Batch

logger = logging.getLogger(__name__)

Kind = Literal["logits", "cosine", "hidden"]
MASK = "attention_mask"
CACHE_BYTES = 256 << 20
_BATCH, _FEW = 64, 2


@dataclass(frozen=True)
class Teaching:
    """What of a teacher's answers is learned.

    Args:
        kind: "logits": soft targets; "cosine": the direction of the outputs; "hidden": hidden states alone.
        temperature: of the soft targets, above 0.
        alpha: weight of what the teacher says, in (0, 1]; the rest goes to the loss of the targets. None: a half where
            there is such a loss, else 1.
        hidden: module of the student -> module of the teacher, whose outputs are to agree, besides the outputs of the
            models; "" is the whole model.
        dimension: of the outputs, where the logits of one place lie; -1 for tokens [samples, tokens, classes].
    """

    kind: Kind = "logits"
    temperature: float = 2.0
    alpha: float | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    dimension: int = 1


class Distillation:
    """The objective of a student that learns from a teacher: call it with a batch.

    alpha * (output term + hidden term) + (1 - alpha) * loss of the targets. The hidden term is the mean over the pairs;
    where a pair differs in the size of one dimension, a linear projection of the student's is learned with it
    (FitNets' regressor), and dropped afterwards. Batches with an input "attention_mask" are averaged over the places
    that it marks, for tensors that begin with its shape.

    Args:
        student: trained.
        teacher: left as it is.
        teaching: what is learned.
        inputs: all of the data; the first two samples are tried out at once.
        loss: of the outputs and the targets; None: no targets are needed.

    Raises:
        InputError: the outputs don't match, a module doesn't exist or gives no tensor, or the weights make no sense.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        teaching: Teaching,
        inputs: Mapping[str, np.ndarray],
        *,
        loss: Loss | None = None,
    ) -> None:
        self.student, self.teacher, self.teaching, self.loss = student, teacher.eval(), teaching, loss
        self.alpha = _alpha(teaching, loss)
        _check(teaching)
        check_modules("student", student, teaching.hidden)
        check_modules("teacher", teacher, teaching.hidden.values())
        few = _tensors(inputs, slice(0, _FEW))
        was_training, _ = student.training, student.eval()
        ours, theirs = self._ask_student(few)[1], self._ask_teacher(few)
        student.train(was_training)
        check_outputs(ours.outputs, theirs.outputs)
        _check_answers(teaching, theirs.outputs)
        self._changed, self.projections = projections(teaching.hidden, ours, theirs)
        self._cached = self._ask_all(inputs) if _is_small(theirs, inputs) else None

    @property
    def cached(self) -> bool:
        """Whether the teacher's answers are kept."""
        return self._cached is not None

    def __call__(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        import torch

        if self._cached is None:
            theirs = self._ask_teacher(batch.inputs)
        else:
            theirs = Answers(*({n: t[batch.rows] for n, t in part.items()} for part in self._cached))
        value, ours = self._ask_student(batch.inputs)
        mask = batch.inputs.get(MASK)
        terms = []
        if self.teaching.kind != "hidden":
            outputs = [(ours.outputs[n], t) for n, t in theirs.outputs.items() if t.is_floating_point()]
            terms.append(torch.stack([self._output_term(o, t, mask) for o, t in outputs]).mean())
        if self.teaching.hidden:
            pairs = self.teaching.hidden.items()
            terms.append(torch.stack([self._hidden_term(a, b, ours, theirs, mask) for a, b in pairs]).mean())
        taught = torch.stack(terms).sum()
        if self.loss is None or self.alpha == 1:
            return taught
        return self.alpha * taught + (1 - self.alpha) * self.loss(value, batch.targets)

    def _output_term(self, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        if self.teaching.kind == "cosine":
            return cosine_loss(ours, theirs, mask)
        temperature, dimension = self.teaching.temperature, self.teaching.dimension
        return soft_target_loss(ours, theirs, temperature=temperature, dimension=dimension, mask=mask)

    def _hidden_term(
        self, name: str, teachers: str, ours: Answers, theirs: Answers, mask: Tensor | None
    ) -> Tensor:
        mine = ours.hidden[name]
        place = self._changed.get(name)
        if place is not None:
            linear = self.projections[list(self._changed).index(name)]
            mine = linear(wider(mine).movedim(place, -1)).movedim(-1, place)
        return hidden_loss(mine, theirs.hidden[teachers], mask)

    def _ask_student(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Answers]:
        return ask(self.student, self.teaching.hidden, inputs)

    def _ask_teacher(self, inputs: Mapping[str, Tensor]) -> Answers:
        import torch

        with torch.no_grad():
            return ask(self.teacher, self.teaching.hidden.values(), inputs)[1]

    def _ask_all(self, inputs: Mapping[str, np.ndarray]) -> Answers:
        import torch

        total = len(next(iter(inputs.values())))
        parts = [self._ask_teacher(_tensors(inputs, slice(a, a + _BATCH))) for a in range(0, total, _BATCH)]
        logger.info("asked the teacher about %d samples, once for all", total)
        return Answers(
            {name: torch.cat([part.outputs[name] for part in parts]) for name in parts[0].outputs},
            {name: torch.cat([part.hidden[name] for part in parts]) for name in parts[0].hidden},
        )


def check_outputs(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> None:
    """Refuse a student whose outputs have other names or shapes than the teacher's."""
    found = {name: list(tensor.shape) for name, tensor in student.items()}
    wanted = {name: list(tensor.shape) for name, tensor in teacher.items()}
    if found != wanted:
        raise InputError(
            "the student's outputs are not the teacher's",
            found=f"{found} for {_samples(found)} samples",
            wanted=str(wanted),
            remedy="Give the student a last layer of the teacher's size, and the teacher's names of outputs.",
        )


def _samples(shapes: Mapping[str, list[int]]) -> int:
    return next((shape[0] for shape in shapes.values() if shape), 0)


def _check(teaching: Teaching) -> None:
    if not (math.isfinite(teaching.temperature) and teaching.temperature > 0):
        raise InputError("temperature", found=teaching.temperature, wanted="a number above 0")
    if teaching.kind == "hidden" and not teaching.hidden:
        raise InputError(
            "distillation of hidden states",
            found="no pair of modules in `hidden`",
            wanted="{student's module: teacher's module}",
            remedy="Name the modules whose outputs are to agree; '' is the whole model.",
        )


def _check_answers(teaching: Teaching, outputs: Mapping[str, Tensor]) -> None:
    """Refuse outputs that the kind of distillation can't be taken of."""
    if teaching.kind == "hidden":
        return
    floating = {name: tensor for name, tensor in outputs.items() if tensor.is_floating_point()}
    for tensor in floating.values():
        place = teaching.dimension if teaching.kind == "logits" else -1
        if not -tensor.ndim <= place < tensor.ndim or tensor.ndim < 2 or tensor.shape[place] < 2:
            raise InputError(
                f"distillation of {teaching.kind}",
                found=f"outputs of shape {list(tensor.shape)}",
                wanted="two numbers or more " + ("in dimension 1" if place == 1 else f"in dimension {place}"),
                remedy="For single numbers choose kind 'hidden' with {'': ''}: the outputs' mean squared error.",
            )
    if not floating:
        raise InputError(
            "the teacher's outputs", found="no floating-point numbers", wanted="some to learn from",
            remedy="Return the scores from forward, not the classes.",
        )  # fmt: skip


def _alpha(teaching: Teaching, loss: Loss | None) -> float:
    if teaching.alpha is None:
        return 1.0 if loss is None else 0.5
    if not 0 < teaching.alpha <= 1:
        raise InputError("alpha", found=teaching.alpha, wanted="above 0, at most 1")
    if teaching.alpha < 1 and loss is None:
        raise InputError(
            f"alpha {teaching.alpha} leaves a share to the targets",
            found="no loss of them",
            wanted="`loss`, or alpha 1",
            remedy="Give the loss, or leave alpha out.",
        )
    return teaching.alpha


def _tensors(inputs: Mapping[str, np.ndarray], rows: slice) -> dict[str, Tensor]:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array[rows])) for name, array in inputs.items()}


def _is_small(answers: Answers, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether the answers to all of the data may be kept, seen from those to a few."""
    samples = len(next(iter(inputs.values())))
    few = min(_FEW, samples)
    tensors = [*answers.outputs.values(), *answers.hidden.values()]
    if any(tensor.ndim == 0 or tensor.shape[0] != few for tensor in tensors):
        return False  # not a row a sample
    return sum(tensor.nbytes for tensor in tensors) * samples <= CACHE_BYTES * few
