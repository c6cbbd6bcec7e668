"""A training loop of our own: reproducible, masked, resumable. Knows no model, no loss and no teacher."""

from __future__ import annotations

import logging
import math
import random
import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_model_deploy.engine.artifacts import Checkpoint
from airflow_model_deploy.engine.compression.recovery import masked_training
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import reproducible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    from torch import Tensor, nn

    Targets = np.ndarray | Mapping[str, np.ndarray]
    Objective = Callable[["Batch"], Tensor]

logger = logging.getLogger(__name__)

_WARM_UP, _START, _END = 0.3, 1 / 25, 1 / 25e4  # of torch's OneCycleLR, as most recipes have them
_MAX_NORM = 1.0
_SECONDS_BETWEEN_SAVES = 30.0


class Batch(NamedTuple):
    """Some samples as tensors.

    Args:
        inputs: by name, samples along dimension 0.
        targets: a tensor, a dict of them, or None.
        rows: which samples of the data these are.
    """

    inputs: dict[str, Tensor]
    targets: Any
    rows: Tensor


@dataclass(frozen=True)
class Schedule:
    """How long and how fast is learned.

    Args:
        epochs: passes over the data, at least 1.
        batch_size: samples a step; a single sample left over is dropped, as batch norms can't learn from one.
        learning_rate: the peak of the one-cycle schedule.
        weight_decay: AdamW's, of everything with two dimensions or more.
        seed: of python, numpy and torch, and of the order of the samples.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What a training left to tell.

    Args:
        losses: the mean loss of each epoch.
        resumed_at_epoch: complete epochs that an earlier attempt had done; None: there was none.
    """

    losses: tuple[float, ...]
    resumed_at_epoch: int | None


def train_in_place(
    model: nn.Module,
    objective: Objective,
    inputs: Mapping[str, np.ndarray],
    targets: Targets | None,
    schedule: Schedule,
    *,
    masks: Mapping[str, Tensor] | None = None,
    extra: nn.Module | None = None,
    progress: Callable[..., Iterable[int]] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Minimise an objective over a model's weights with AdamW, in place; the model is left in eval mode.

    The learning rate follows one cycle (Smith and Topin 2017, arXiv:1708.07120), gradients are clipped at norm 1
    (Pascanu et al. 2013, arXiv:1211.5063). The same call gives the same weights, also where it was killed and goes on
    from its checkpoint.

    Args:
        model: trained in place.
        objective: calls the model with a batch and returns a scalar tensor.
        inputs: name -> array, dimension 0 = samples.
        targets: handed to the objective.
        schedule: how long and how fast.
        masks: parameter -> True where a weight stays; the others are zero after every step.
        extra: what else is trained, and not kept: projections.
        progress: progress(items, label) shows how far it is.
        checkpoint: saved after every epoch, and every 30 seconds within one.
    """
    import torch

    _check(schedule)
    with reproducible(schedule.seed, torch.get_num_threads()), masked_training(model, masks or {}):
        run = _Run(model, extra, schedule, checkpoint or Checkpoint(), len(next(iter(inputs.values()))))
        resumed = run.resume()
        tensors = {name: _tensor(array, f"input {name}") for name, array in inputs.items()}
        epochs = range(resumed or 0, schedule.epochs)
        for epoch in progress(epochs, "epochs") if progress and len(epochs) else epochs:
            model.train()
            run.train_epoch(epoch, objective, tensors, targets)
    model.eval()
    return Trained(tuple(run.losses), resumed)


def learning_rate_factor(step: int, total: int) -> float:
    """Return the share of the peak learning rate in a step, counted from 0: cosines up from 1/25, down to 1/250000.

    The formula of torch's OneCycleLR, without its state, so that a step's rate follows from its number alone.
    """
    up = _WARM_UP * total - 1
    if up <= 0 or step > up:
        share = (step - max(up, 0)) / max(total - 1 - max(up, 0), 1)
        return _between(1.0, _END, share)
    return _between(_START, 1.0, step / up)


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))


class _Run:
    """A training under way: everything that a checkpoint has to hold."""

    def __init__(
        self,
        model: nn.Module,
        extra: nn.Module | None,
        schedule: Schedule,
        checkpoint: Checkpoint,
        samples: int,
    ) -> None:
        import torch

        self.modules = [model] if extra is None else [model, extra]
        self.schedule, self.checkpoint, self.samples = schedule, checkpoint, samples
        self.steps = _steps(samples, schedule.batch_size)
        self.optimizer = self._optimizer()
        self.order = torch.Generator().manual_seed(schedule.seed)
        self.losses: list[float] = []
        self._done, self._sum = 0, 0.0  # batches of the present epoch, and the sum of their losses
        self._epoch_start = self.order.get_state()
        self._saved = time.monotonic()

    def resume(self) -> int | None:
        """Go on from the checkpoint where there is a usable one; returns the epochs that are done."""
        state = self.checkpoint.load()
        if state is None:
            return None
        before = random_states()
        try:
            self._restore(state)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            logger.warning("starting over: the checkpoint is of another training: %s", error)
            set_random_states(before)
            self.optimizer = self._optimizer()
            self.order.manual_seed(self.schedule.seed)
            return None
        logger.info("going on after %d epochs and %d batches", len(self.losses), self._done)
        return len(self.losses)

    def train_epoch(
        self, epoch: int, objective: Objective, inputs: dict[str, Tensor], targets: Targets | None
    ) -> None:
        """Learn from every batch once."""
        import torch

        self._epoch_start = self.order.get_state()
        order = torch.randperm(self.samples, generator=self.order)
        size = self.schedule.batch_size
        for place in range(self._done, self.steps):
            rows = order[place * size : (place + 1) * size]
            batch = Batch({name: a[rows] for name, a in inputs.items()}, _targets(targets, rows), rows)
            self._sum += self._learn(objective, batch, epoch, place)
            self._done = place + 1
            if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES and self._done < self.steps:
                self._save()
        self.losses.append(self._sum / self.steps)
        self._done, self._sum = 0, 0.0
        self._epoch_start = self.order.get_state()
        self._save(last=epoch + 1 == self.schedule.epochs)

    def _learn(self, objective: Objective, batch: Batch, epoch: int, place: int) -> float:
        import torch

        factor = learning_rate_factor(epoch * self.steps + place, self.schedule.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * factor
        loss = objective(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss in epoch {epoch + 1} of {self.schedule.epochs}", found=value, wanted="a finite number",
                remedy="Lower the learning rate, or look for NaN in the data and in the loss.",
            )  # fmt: skip
        if not loss.requires_grad:
            raise InputError(
                "the loss", found="no gradient towards the weights", wanted="a tensor computed from the outputs",
                remedy="Compute the loss with torch, without detach, item or numpy.",
            )  # fmt: skip
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, _MAX_NORM)
        self.optimizer.step()
        return value

    def _optimizer(self) -> Any:
        import torch

        learned = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        if not learned:
            raise InputError(
                "the model can't be trained", found="no parameter that takes a gradient", wanted="at least one",
                remedy="Don't freeze all of it in the factory.",
            )  # fmt: skip
        groups = [
            {"params": [p for p in learned if p.ndim >= 2], "weight_decay": self.schedule.weight_decay},
            {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.schedule.learning_rate)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name every parameter and buffer, those too that a state dict leaves out."""
        for number, module in enumerate(self.modules):
            for name, tensor in chain(module.named_parameters(), module.named_buffers()):
                yield f"{number}.{name}", tensor

    def _save(self, *, last: bool = False) -> None:
        self._saved = time.monotonic()
        state = {
            "tensors": dict(self._tensors()),
            "optimizer": self.optimizer.state_dict(),
            "order": self._epoch_start,
            "random": random_states(),
            "losses": list(self.losses),
            "done": self._done,
            "sum": self._sum,
        }
        self.checkpoint.save(state, now=last)

    def _restore(self, state: Mapping[str, Any]) -> None:
        import torch

        mine, kept = dict(self._tensors()), state["tensors"]
        form = {name: (tensor.shape, tensor.dtype) for name, tensor in mine.items()}
        if {name: (tensor.shape, tensor.dtype) for name, tensor in kept.items()} != form:
            raise ValueError("its tensors have other names, shapes or types")
        losses, done = [float(loss) for loss in state["losses"]], int(state["done"])
        if len(losses) > self.schedule.epochs or not 0 <= done < self.steps:
            raise ValueError(f"{len(losses)} epochs and {done} batches")
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"])
        set_random_states(state["random"])
        self.losses, self._done, self._sum = losses, done, float(state["sum"])
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(kept[name])


def random_states() -> dict[str, Any]:
    """Return where the generators of python, numpy and torch are, as a checkpoint can hold it."""
    import numpy as np
    import torch

    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators back to where they were."""
    import numpy as np
    import torch

    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])


def _steps(samples: int, size: int) -> int:
    return max(1, samples // size + (samples % size > 1))


def _targets(targets: Targets | None, rows: Tensor) -> Any:
    from collections.abc import Mapping

    if targets is None:
        return None
    if isinstance(targets, Mapping):
        return {name: _tensor(array[rows.numpy()], f"targets {name}") for name, array in targets.items()}
    return _tensor(targets[rows.numpy()], "the targets")


def _tensor(array: np.ndarray, name: str) -> Tensor:
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise InputError(
            f"{name} can't be trained on", found=f"type {array.dtype}", wanted="numbers",
            remedy="Let the data loader return numbers.",
        ) from error  # fmt: skip


def _check(schedule: Schedule) -> None:
    for name in ("epochs", "batch_size"):
        if getattr(schedule, name) < 1:
            raise InputError(name, found=getattr(schedule, name), wanted="at least 1")
    rate = schedule.learning_rate
    if not (math.isfinite(rate) and rate > 0):
        raise InputError("learning_rate", found=rate, wanted="a number above 0")
