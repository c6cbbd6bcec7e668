"""A small convolutional network for the digits, and how it is trained: plain PyTorch, as a user would write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np


class DigitsNet(nn.Module):
    """Four 3 x 3 convolutions with batch normalization, global average pooling, one linear layer."""

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for place, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if place == 1:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, 1, 8, 8) to logits (n, classes)."""
        logits: torch.Tensor = self.classifier(self.features(images))
        return logits


def build_model(widths: tuple[int, ...] = (32, 64, 128, 128), classes: int = 10) -> nn.Module:
    """Return the untrained network."""
    return DigitsNet(tuple(widths), classes)


def fit(
    model: nn.Module,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    *,
    epochs: int,
    progress: Callable[[Iterable[int], str], Iterable[int]],
    seed: int = 0,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
) -> None:
    """Train in place with AdamW and a one-cycle learning rate; images are shifted by up to one pixel."""
    images, labels = torch.from_numpy(inputs["images"]), torch.from_numpy(targets)
    random = torch.Generator().manual_seed(seed)
    steps = -(-len(images) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    model.train()
    for _ in progress(range(epochs), "epochs"):
        order = torch.randperm(len(images), generator=random)
        for start in range(0, len(images), batch_size):
            rows = order[start : start + batch_size]
            loss = nn.functional.cross_entropy(
                model(_shifted(images[rows], random)), labels[rows], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()


def _shifted(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    rows, columns = torch.randint(-1, 2, (2,), generator=random).tolist()
    return torch.roll(images, (rows, columns), dims=(2, 3))
