"""Knows what makes a computation repeatable in this process, and puts everything back afterwards."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reproducible(seed: int, threads: int = 1) -> Iterator[None]:
    """Seed python, numpy and torch; deterministic algorithms; a fixed number of torch threads.

    The same seed and thread count on the same machine give the same bits. Another thread count may not:
    sums are then split elsewhere.
    """
    import numpy as np
    import torch

    if not 0 <= seed < 2**32:
        raise InputError("seed", found=seed, wanted="0 <= seed < 2**32")
    if threads < 1:
        raise InputError("threads", found=threads, wanted="at least 1")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    old_threads, old_workspace = torch.get_num_threads(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(old_threads)
        if old_workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
