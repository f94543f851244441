"""What a node's processes use to talk to each other, none of which can be left locked by a kill.

django-q2's own queues, events and timers are guarded by semaphores, and a semaphore dies with its holder:
kill -9 the idle workers of a stock cluster and no task ever runs again (django-q2 issue 23). These have the
same methods and no lock: whole messages on a socket, a counter in the kernel, a plain shared number.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_LARGEST_MESSAGE = 128 * 1024


class MessageQueue:
    """One writer, many readers, whole messages (AF_UNIX, SOCK_SEQPACKET). Inherited by fork."""

    def __init__(self) -> None:
        self._writer, self._reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._put_back: list[Any] = []
        # Called by `get` once it has waited for `idle_after` seconds.
        self.on_idle: Callable[[], object] | None = None
        self.idle_after = 0.0

    def put(self, message: Any) -> None:
        """Send `message`; waits while the kernel's buffer is full."""
        self._writer.send(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def get(self) -> Any:
        """Wait for a message and take it."""
        if self._put_back:
            return self._put_back.pop()
        if self.on_idle and not select.select([self._reader], [], [], self.idle_after)[0]:
            self.on_idle()
        # Both ends are ours and were made by fork: what arrives was pickled by this node.
        return pickle.loads(self._reader.recv(_LARGEST_MESSAGE))  # noqa: S301

    def get_nowait(self) -> Any:
        """A message that is there already, or None."""
        try:
            return pickle.loads(self._reader.recv(_LARGEST_MESSAGE, socket.MSG_DONTWAIT))  # noqa: S301
        except BlockingIOError:
            return None

    def put_back(self, message: Any) -> None:
        """Let the next `get` of this process have `message`."""
        self._put_back.append(message)

    def empty(self) -> bool:
        return not self._put_back and not select.select([self._reader], [], [], 0)[0]

    def qsize(self) -> int:
        """1 when there is a message: a socket can be looked at, not counted."""
        return 0 if self.empty() else 1

    def discard(self) -> None:
        """Throw away whatever nobody has taken."""
        while not self.empty():
            self.get()

    def close(self) -> None:
        """Nothing to do: the processes that hold the socket close it by ending."""

    def join_thread(self) -> None:
        """Nothing to do: `put` has handed the message to the kernel when it returns."""


class ResultQueue:
    """Where django-q2's workers put results for its monitor, which a node does not have.

    A worker records how its execution ended itself, in one transaction with the batch.
    """

    def put(self, message: Any) -> None:
        """Drop it."""

    def empty(self) -> bool:
        return True

    def qsize(self) -> int:
        return 0


class Flag:
    """An event: once set, every process that waits on it goes on (an eventfd that is never read)."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0)

    def fileno(self) -> int:
        return self._fd

    def set(self) -> None:
        os.eventfd_write(self._fd, 1)

    def is_set(self) -> bool:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds, and say whether it is set."""
        return bool(select.select([self._fd], [], [], timeout)[0])


class Counter:
    """Counts what many processes report to one reader (an eventfd)."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def add(self) -> None:
        os.eventfd_write(self._fd, 1)

    def take(self) -> int:
        """How many were added since the last call."""
        try:
            return os.eventfd_read(self._fd)
        except BlockingIOError:
            return 0


class Timer:
    """The number that a django-q2 worker and its sentinel share; written by one, so it needs no lock."""

    def __init__(self) -> None:
        self._value = multiprocessing.RawValue("f", -1)

    @property
    def value(self) -> float:
        return float(self._value.value)

    @value.setter
    def value(self, value: float) -> None:
        self._value.value = value

    def get_lock(self) -> AbstractContextManager[None]:
        return nullcontext()
