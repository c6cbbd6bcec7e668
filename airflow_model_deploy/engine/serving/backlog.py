"""Ends a listening socket without failing whoever is already connected to it; knows no server."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

from . import logs

_SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header: a segment with SYN is dropped, every other one passes.
_DROP_SYN = struct.pack(
    "=" + "HBBI" * 4,
    *(0x30, 0, 0, 13),  # load the byte of flags
    *(0x45, 0, 1, 0x02),  # is SYN set?
    *(0x06, 0, 0, 0),  # yes: take nothing of it
    *(0x06, 0, 0, 0xFFFF),  # no: take it all
)


def stop_handshakes(listener: socket.socket) -> None:
    """Let no new connection into the backlog; those in it can still be accepted.

    Closing a listener resets what waits in its backlog: its clients are connected, and may have sent a request. A
    client whose SYN is dropped sends it again after a second, and is refused then: nothing of it was lost. Only for
    a socket that no other process accepts from. Where the kernel can't do it, the backlog is reset as ever.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    try:
        program = struct.pack("@HP", 4, ctypes.addressof(code))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        logs.warning("new connections can't be held off", error=str(error))
