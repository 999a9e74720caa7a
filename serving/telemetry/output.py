"""Where log lines go: standard error, whatever becomes of it.

A line is written whole, one at a time. A closed pipe, a full disk or a reader that has stopped costs lines and never
the server: what cannot be written is counted, and told once something can be written again.
"""

import os
import select
import stat
from collections.abc import Callable
from threading import Lock

STDERR = 2
# For a reader that is busy; one that has stopped delays the server once, by this.
WAIT_MS = 1_000


class Output:
    """A descriptor that lines of any thread go to; `told_lost` makes the line that says how many were lost."""

    def __init__(self, descriptor: int, told_lost: Callable[[int], bytes]) -> None:
        self._descriptor = descriptor
        self._told_lost = told_lost
        self._lock = Lock()
        self._lost_count = 0
        self._is_stuck = False
        self._is_torn = False  # the last thing written is part of a line
        self._maybe_poll: select.poll | None = None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a file is always ready, and need not be asked
            self._maybe_poll = select.poll()
            self._maybe_poll.register(descriptor, select.POLLOUT)

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._lost_count and self._put(self._told_lost(self._lost_count)):
                self._lost_count = 0
            if self._lost_count or not self._put(line):
                self._lost_count += 1

    def _put(self, line: bytes) -> bool:
        """Whether the whole line was written."""
        left = b"\n" + line if self._is_torn else line
        try:
            while left and self._is_ready():
                written = os.write(self._descriptor, left if self._maybe_poll is None else left[: select.PIPE_BUF])
                left = left[written:]
                self._is_torn = bool(left)
        except OSError:
            return False
        return not left

    def _is_ready(self) -> bool:
        """Whether PIPE_BUF bytes are taken without waiting, at least soon; at once where it was in vain before."""
        if self._maybe_poll is None:
            return True
        self._is_stuck = not self._maybe_poll.poll(0 if self._is_stuck else WAIT_MS)
        return not self._is_stuck


def occupy_standard_descriptors() -> None:
    """Opens what of 0, 1 and 2 is closed, on nothing.

    Otherwise the next file gets such a number, be it the ledger's, and what gRPC's C core writes to standard error too.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
