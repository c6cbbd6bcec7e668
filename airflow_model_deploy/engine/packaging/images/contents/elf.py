"""The part of a shared library that is loaded; knows ELF and no package."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little endian: amd64 and arm64
_HEADER, _SEGMENT = 64, 56
# Offsets in the file header (System V gABI): where the tables lie, and the size and number of their entries.
_SEGMENTS_AT, _SECTIONS_AT, _SEGMENTS_COUNT, _SECTIONS_COUNT = 32, 40, 54, 58


def cut_unloaded(path: Path) -> int:
    """Drop what lies behind the last segment: symbols for debuggers, debug information, the section table.

    No loaded byte moves or changes, which `strip` can't promise (it breaks libraries that patchelf has written
    to, numpy's OpenBLAS among them), and no tool is needed. Files of another kind stay as they are.

    Returns:
        The number of bytes that went.
    """
    with path.open("r+b") as stream:
        header = bytearray(stream.read(_HEADER))
        if len(header) < _HEADER or not header.startswith(_MAGIC):
            return 0
        table = int.from_bytes(header[_SEGMENTS_AT : _SEGMENTS_AT + 8], "little")
        entry_size, entries = struct.unpack_from("<HH", header, _SEGMENTS_COUNT)
        stream.seek(table)
        segments = stream.read(entry_size * entries)
        ends: list[int] = [table + len(segments)]
        for start in range(0, len(segments) - _SEGMENT + 1, entry_size or _SEGMENT):
            _, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", segments, start)
            ends.append(offset + size)
        total = stream.seek(0, 2)
        if not segments or len(segments) < entry_size * entries or max(ends) >= total:
            return 0
        struct.pack_into("<Q", header, _SECTIONS_AT, 0)
        struct.pack_into("<HHH", header, _SECTIONS_COUNT, 0, 0, 0)
        stream.seek(0)
        stream.write(header)
        stream.truncate(max(ends))
    return total - max(ends)
