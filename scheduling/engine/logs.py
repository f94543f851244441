"""Where the output of one execution goes: bounded in memory and in the database, whatever the job prints.

The first `head_bytes` are kept as they come. Beyond them a ring keeps the last `tail_bytes`; what falls
out of it is counted, and the end of the log shows that count as a gap before the tail. So a job may
print a gigabyte: the record holds its beginning, its end and how much is missing between.

The sink knows no database: it hands finished chunks to an injected callable.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024
"""The most UTF-8 text that one chunk holds, and the amount waiting that wakes the flusher."""

MASK = b"***"
_NEAR = 4096  # how far back from a forced cut, in bytes, a newline is looked for
_LONGEST_ESCAPE = 32
_OPEN_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*)?\Z")

type Store = Callable[[int, str, int], None]


@dataclass(frozen=True, slots=True)
class _Chunk:
    text: str
    dropped: int
    size: int  # bytes of the buffer that it covers


class LogSink:
    """Takes what a job prints, from any thread, and stores it in chunks when asked to flush.

    `store(sequence, text, dropped_bytes)` writes one chunk; sequences are 0, 1, 2, … A chunk whose
    `store` raised is offered again, unchanged and under the same number, at the next flush: a store
    that ignores a number it already has neither loses nor repeats anything.

    Every string in `redact`, or given to `redact()` later, is shown as `***`, also when writes split it.
    """

    def __init__(self, store: Store, *, head_bytes: int, tail_bytes: int, redact: Iterable[str] = ()) -> None:
        self.ready = threading.Event()
        """Set while at least one full chunk waits, so that a flusher thread can sleep on it."""
        self._store = store
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._head_left = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._secrets: list[bytes] = []
        self._pattern: re.Pattern[bytes] | None = None
        self._held = b""
        self._sequence = 0
        self._offered: _Chunk | None = None
        self._ended = False
        if redact:
            self.redact(*redact)

    @property
    def pending(self) -> int:
        """Bytes that a flush would store now; the tail counts only at the final one."""
        return len(self._head)

    def redact(self, *secrets: str) -> None:
        """Show each of `secrets` as `***` from now on; empty ones are ignored."""
        with self._lock:
            found = {*self._secrets, *(_encoded(secret) for secret in secrets if secret)}
            self._secrets = sorted(found, key=len, reverse=True)
            self._pattern = re.compile(b"|".join(map(re.escape, self._secrets))) if found else None

    def redacted(self, text: str) -> str:
        """`text` as the log would show it, for messages that are kept elsewhere."""
        if self._pattern is None:
            return text
        return self._pattern.sub(MASK, _encoded(text)).decode("utf-8", "replace")

    def write(self, text: str) -> None:
        """Append text. Never blocks on the database."""
        self.write_bytes(_encoded(text))

    def write_bytes(self, data: bytes) -> None:
        """Append bytes, meant as UTF-8: what is not shows as U+FFFD. Never blocks on the database."""
        with self._lock:
            if self._pattern is not None:
                data = self._masked(data)
            self._keep(data)

    def flush(self, *, final: bool = False) -> None:
        """Store what waits. `final` also stores the gap and the tail, after which nothing more is kept.

        Whatever `store` raises comes through, and what was not stored stays for the next call.
        """
        with self._flushing:
            if final:
                with self._lock:
                    self._close()
            while True:
                with self._lock:
                    chunk = self._offered = self._offered or self._next_chunk(final=final)
                    if chunk is None:
                        self.ready.clear()
                        return
                self._store(self._sequence, chunk.text, chunk.dropped)
                with self._lock:
                    self._offered = None
                    self._sequence += 1
                    if chunk.dropped:
                        self._dropped = 0
                    del self._head[: chunk.size]

    def _keep(self, data: bytes | memoryview) -> None:
        if self._head_left > 0:
            taken = len(data) if len(data) <= self._head_left else _cut(bytes(data[: self._head_left]))
            self._head += data[:taken]
            # A head that is full ends at a whole line or character; the rest belongs to the tail.
            self._head_left = self._head_left - taken if taken == len(data) else 0
            if len(self._head) >= CHUNK_BYTES:
                self.ready.set()
            data = data[taken:]
        if not data:
            return
        # One byte more than the tail: it tells whether the tail begins with a whole line.
        excess = len(data) - self._tail_bytes - 1
        if excess >= 0:
            self._dropped += len(self._tail) + excess
            self._tail[:] = data[excess:]
            return
        self._tail += data
        # Trimmed at twice its size, so that a job that prints byte by byte costs no move for each.
        if len(self._tail) > 2 * self._tail_bytes + 1:
            self._trim_tail()

    def _trim_tail(self) -> None:
        excess = len(self._tail) - self._tail_bytes - 1
        if excess > 0:
            self._dropped += excess
            del self._tail[:excess]

    def _close(self) -> None:
        """Bring what is held back and the tail into the head, behind the gap."""
        held, self._held = self._held, b""
        if held:
            self._keep(held)
        self._head_left = 0
        self._trim_tail()
        if not self._dropped and len(self._tail) <= self._tail_bytes:
            self._head += self._tail
            self._tail.clear()
        elif not self._ended:
            start = _start(self._tail)
            self._dropped += start
            del self._tail[:start]
        self._ended = True

    def _next_chunk(self, *, final: bool) -> _Chunk | None:
        if self._head:
            return _chunk(self._head, final=final)
        if not final:
            return None
        if self._dropped:
            return _Chunk("", self._dropped, 0)
        if self._tail:
            self._head, self._tail = self._tail, bytearray()
            return _chunk(self._head, final=True)
        return None

    def _masked(self, data: bytes) -> bytes:
        """`data` after what was held back, with secrets masked; holds back what may begin one."""
        assert self._pattern is not None  # noqa: S101 - the caller looked
        data = self._held + data
        hold = self._hold_from(data, 0)
        parts: list[bytes] = []
        position = 0
        for match in self._pattern.finditer(data):
            if match.start() >= hold:
                break
            parts += (data[position : match.start()], MASK)
            position = match.end()
            if position > hold:
                hold = self._hold_from(data, position)
        parts.append(data[position:hold])
        self._held = data[hold:]
        return b"".join(parts)

    def _hold_from(self, data: bytes, start: int) -> int:
        """Where in `data` the longest ending begins that is the beginning of a secret, or the end of `data`."""
        longest = len(self._secrets[0]) - 1
        for position in range(max(start, len(data) - longest), len(data)):
            ending = data[position:]
            if any(len(secret) > len(ending) and secret.startswith(ending) for secret in self._secrets):
                return position
        return len(data)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _chunk(buffer: bytearray, *, final: bool) -> _Chunk | None:
    """The next chunk of `buffer`; None when only the beginning of a character waits."""
    size = _size(buffer, CHUNK_BYTES, final=final)
    text = _decoded(buffer, size)
    if len(text) * 3 > CHUNK_BYTES and len(text.encode()) > CHUNK_BYTES:
        # U+FFFD is three bytes: output that is not text grows.
        size = _size(buffer, CHUNK_BYTES // 3, final=final)
        text = _decoded(buffer, size)
    return _Chunk(text, 0, size) if size else None


def _size(buffer: bytearray, limit: int, *, final: bool) -> int:
    if len(buffer) > limit:
        return _cut(bytes(buffer[:limit]))
    return len(buffer) if final else _whole(bytes(buffer))


def _decoded(buffer: bytearray, size: int) -> str:
    return buffer[:size].decode("utf-8", "replace").replace("\0", "\ufffd")


def _cut(piece: bytes) -> int:
    """Where to cut `piece`, whose continuation follows: after a near newline, else between characters."""
    newline = piece.rfind(b"\n", -_NEAR)
    return newline + 1 or _whole(piece)


def _whole(piece: bytes) -> int:
    """How much of `piece` ends with a whole character and outside a terminal's escape sequence."""
    escape = _OPEN_ESCAPE.search(piece, max(0, len(piece) - _LONGEST_ESCAPE))
    if escape:
        return escape.start()
    for back in range(1, min(4, len(piece)) + 1):
        byte = piece[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(piece) - back if needed > back else len(piece)
        if byte < 0x80:
            break
    return len(piece)


def _start(tail: bytearray) -> int:
    """Where a tail behind a gap begins: past its first byte, after a near newline, else at a character."""
    newline = tail.find(b"\n", 0, _NEAR)
    if 0 <= newline < len(tail) - 1:
        return newline + 1
    start = min(1, len(tail))
    while start < min(4, len(tail)) and 0x80 <= tail[start] < 0xC0:
        start += 1
    return start
