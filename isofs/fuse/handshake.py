"""The first exchange with the kernel: what the mount can do.

libfuse answers it, and neither libfuse nor pyfuse3 lets anybody ask for what it does not know. So it is given one end
of a socket pair instead of the device at first; what it answers is passed on with more asked for, and the device takes
its place, under the same number.
"""

from __future__ import annotations

import os
import socket
import struct

#: FUSE_HANDLE_KILLPRIV_V2: set-id bits and capabilities are taken from what is written by us (`engine.files` does), so
#: that the kernel need not ask for `security.capability` before each write to the page cache.
#: FUSE_CACHE_SYMLINKS: the kernel keeps where links lead; a link never changes.
WANTED = 1 << 28 | 1 << 23

#: fuse_in_header with fuse_init_in, fuse_out_header with fuse_init_out, up to the flags.
_ASKED = struct.Struct("=40sIIII")
_ANSWERED = struct.Struct("=IiQIIII")
_LARGEST = 1 << 16


class Handshake:
    """Stands between the device and libfuse for one request: `ask` before it is read, `answered` when it was."""

    def __init__(self, device: int) -> None:
        self._number = device
        self._device = os.dup(device)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.dup2(theirs.fileno(), device, inheritable=False)
        self._offered = 0

    def ask(self) -> None:
        """Let libfuse read the kernel's first request."""
        request = os.read(self._device, _LARGEST)
        self._offered = _ASKED.unpack_from(request)[4]
        self._ours.send(request)

    def answered(self) -> None:
        """Pass on what libfuse answered, and put the device in its place."""
        answer = bytearray(self._ours.recv(_LARGEST, socket.MSG_DONTWAIT))
        if len(answer) >= _ANSWERED.size:
            *front, flags = _ANSWERED.unpack_from(answer)
            _ANSWERED.pack_into(answer, 0, *front, flags | (WANTED & self._offered))
        os.write(self._device, answer)
        self.close()

    def close(self) -> None:
        """Put the device in its place, whatever has happened."""
        if self._device >= 0:
            os.dup2(self._device, self._number, inheritable=False)
            os.close(self._device)
            self._device = -1
            self._ours.close()
