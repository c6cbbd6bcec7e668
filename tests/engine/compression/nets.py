"""Small torch models of every shape that compression must handle."""

from __future__ import annotations

import torch
from torch import nn


class PlainCNN(nn.Module):
    def __init__(self, channels: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1, stride=2)
        self.head = nn.Linear(2 * channels * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(x.flatten(1))


class ResidualCNN(nn.Module):
    """Residual sum with batch norms, a depthwise and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv1, self.norm1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))
        x = torch.relu(self.grouped(torch.relu(self.pointwise(torch.relu(self.depthwise(x))))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Heads are split by a view: q, k and v may not lose channels one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, 4, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, length, -1))
        return self.head((x + self.down(torch.relu(self.up(x)))).mean(1))


def mlp(width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(20, width), nn.LayerNorm(width), nn.ReLU(),
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 4),
    )  # fmt: skip


EXAMPLES = {"PlainCNN": (2, 1, 8, 8), "ResidualCNN": (2, 1, 8, 8), "mlp": (2, 20), "Attention": (2, 6, 32)}


def build(name: str, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A model with lively statistics in its norms, in eval mode, and an input for it."""
    torch.manual_seed(seed)
    model: nn.Module = globals()[name]()
    example = torch.randn(EXAMPLES[name])
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, *EXAMPLES[name][1:]))
    return model.eval(), example


class Conv1D(nn.Module):
    """As transformers has it for GPT: a linear layer whose weight is [in, out]."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(0.1 * torch.randn(nx, nf)), nn.Parameter(0.1 * torch.randn(nf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class BertBlock(nn.Module):
    def __init__(self, width: int = 16, inner: int = 128) -> None:
        super().__init__()
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.output.dense = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.output.dense(nn.functional.gelu(self.intermediate.dense(x)))


class LlamaBlock(nn.Module):
    def __init__(self, width: int = 16, inner: int = 128) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class GptBlock(nn.Module):
    def __init__(self, width: int = 16, inner: int = 128) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(inner, width), Conv1D(width, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.c_proj(nn.functional.gelu(self.c_fc(x)))


class Fc1Block(nn.Module):
    def __init__(self, width: int = 16, inner: int = 128) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(torch.relu(self.fc1(x)))


BLOCKS = {"bert": BertBlock, "llama": LlamaBlock, "gpt": GptBlock, "fc1": Fc1Block}


class Stack(nn.Module):
    """Some blocks, or torch's own encoder layers, behind each other, with a head."""

    def __init__(self, kind: str, inner: int = 128, layers: int = 2) -> None:
        super().__init__()
        if kind == "torch":
            made = [nn.TransformerEncoderLayer(16, 4, inner, batch_first=True) for _ in range(layers)]
        else:
            made = [BLOCKS[kind](16, inner) for _ in range(layers)]
        self.layers, self.head = nn.ModuleList(made), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))
