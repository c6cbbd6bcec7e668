"""Turns float weights into integers, block by block: symmetric, rounded to the nearest, zero stays zero.

Every result is a stream that reads its weight again when it is asked for, so that none is kept in memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from airflow_model_deploy.engine.models import StoredTensor

_LARGEST = 127


def column_scales(weight: StoredTensor, *, transposed: bool, per_channel: bool) -> np.ndarray:
    """max|w| / 127 of each output column, shape [columns]; all columns alike unless `per_channel`.

    Raises:
        InputError: the weight holds NaN or infinity.
    """
    import numpy as np

    parts = [np.abs(rows).max(axis=1 if transposed else 0) for _, _, rows in weight.blocks()]
    largest = np.concatenate(parts) if transposed else np.max(parts, axis=0)
    return _scales(largest if per_channel else np.full_like(largest, largest.max()), weight.name)


def int8_columns(weight: StoredTensor, *, transposed: bool, per_channel: bool) -> Stream:
    """The weight as int8 [rows, columns] of the product, by `column_scales`."""

    def chunks() -> Iterator[np.ndarray]:
        import numpy as np

        scales = column_scales(weight, transposed=transposed, per_channel=per_channel)
        if not transposed:
            for _, _, rows in weight.blocks():
                yield _rounded(rows, scales)
            return
        whole = np.empty(weight.shape[::-1], np.int8)
        for begin, end, rows in weight.blocks():
            whole[:, begin:end] = _rounded(rows, scales[begin:end, None]).T
        yield whole

    return Stream(math.prod(weight.shape), chunks)


def row_scales(weight: StoredTensor) -> np.ndarray:
    """max|w| / 127 of each entry of dimension 0, shape [entries]."""
    import numpy as np

    parts = [np.abs(rows.reshape(len(rows), -1)).max(axis=1) for _, _, rows in weight.blocks()]
    return _scales(np.concatenate(parts), weight.name)


def int8_rows(weight: StoredTensor) -> Stream:
    """The weight as int8 in its own shape, by `row_scales`."""

    def chunks() -> Iterator[np.ndarray]:
        scales = row_scales(weight)
        for begin, end, rows in weight.blocks():
            yield _rounded(rows.reshape(end - begin, -1), scales[begin:end, None])

    return Stream(math.prod(weight.shape), chunks)


def blockwise(weight: StoredTensor, *, transposed: bool, bits: int, block: int) -> tuple[Stream, Stream]:
    """Weight and scales as MatMulNBits wants them: uint8 [columns, blocks, block·bits/8], float32 [columns, blocks].

    A block's scale is its value of largest magnitude, sign included, over -2^(bits-1): that value becomes the
    lowest level exactly, and all levels are used. Levels are stored 2^(bits-1) higher.
    """
    depth, columns = weight.shape[::-1] if transposed else weight.shape
    count = -(-depth // block)
    width = block * bits // 8

    def levels() -> Iterator[np.ndarray]:
        import numpy as np

        whole = np.empty((columns, count, width), np.uint8)
        for place, values in _in_blocks(weight, transposed=transposed, block=block):
            whole[place] = _packed(values, _block_scales(values, bits, weight.name), bits)
        yield whole

    def scales() -> Iterator[np.ndarray]:
        import numpy as np

        whole = np.empty((columns, count), np.float32)
        for place, values in _in_blocks(weight, transposed=transposed, block=block):
            whole[place] = _block_scales(values, bits, weight.name).T
        yield whole

    return Stream(columns * count * width, levels), Stream(4 * columns * count, scales)


def _in_blocks(
    weight: StoredTensor, *, transposed: bool, block: int
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """((columns, blocks) that come, their values [blocks, block, columns]); the last block is filled with zeros."""
    import numpy as np

    for begin, end, rows in weight.blocks(1 if transposed else block):
        values = np.ascontiguousarray(rows.T) if transposed else rows
        depth, columns = values.shape
        count = -(-depth // block)
        if depth != count * block:
            values = np.concatenate([values, np.zeros((count * block - depth, columns), np.float32)])
        first = 0 if transposed else begin // block
        place = (slice(begin, end) if transposed else slice(None), slice(first, first + count))
        yield place, values.reshape(count, block, columns)


def _block_scales(values: np.ndarray, bits: int, name: str) -> np.ndarray:
    """Shape [blocks, columns]."""
    import numpy as np

    low, high = values.min(axis=1), values.max(axis=1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise _not_finite(name)
    return _usable(np.where(-low >= high, low, high) / np.float32(-(2 ** (bits - 1))))


def _packed(values: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """Levels as bytes, [columns, blocks, bytes]; of two 4-bit levels in a byte the first is the lower half."""
    import numpy as np

    half = 2 ** (bits - 1)
    rounded = values / scales[:, None]
    np.rint(rounded, out=rounded)
    np.clip(rounded, -half, half - 1, out=rounded)
    rounded += half
    levels: np.ndarray = rounded.astype(np.uint8)
    if bits == 4:
        levels = levels[:, 0::2] | levels[:, 1::2] << 4
    return levels.transpose(2, 0, 1)


def _rounded(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    import numpy as np

    levels = rows / scales
    np.rint(levels, out=levels)
    np.clip(levels, -_LARGEST, _LARGEST, out=levels)
    found: np.ndarray = levels.astype(np.int8)
    return found


def _scales(largest: np.ndarray, name: str) -> np.ndarray:
    import numpy as np

    if not np.isfinite(largest).all():
        raise _not_finite(name)
    return _usable(largest.astype(np.float32) / np.float32(_LARGEST))


def _usable(scales: np.ndarray) -> np.ndarray:
    """1 where a scale is zero or too small to divide by: those weights become zero."""
    import numpy as np

    found: np.ndarray = np.where(np.abs(scales) < np.finfo(np.float32).tiny, np.float32(1), scales)
    return found


def _not_finite(name: str) -> InputError:
    return InputError(
        f"weight {name}",
        found="NaN or infinity",
        wanted="finite numbers",
        remedy="Look at the training: no scale can be found for such a weight.",
    )
