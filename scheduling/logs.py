"""Reading the log of one execution: by windows of lines, by search, or as a stream.

A log is stored as chunks that know nothing of lines (see engine/logs.py). Lines are numbered from 1 over
what was kept, and keep their numbers as the log grows, so that a line can be linked to. An `Index` says which
line begins in which chunk; a window then reads only the few chunks that hold it, whatever the size of the
log, of its lines or of its chunks.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any

from django.conf import settings
from django.db.models import BooleanField, F, Field, Func
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from scheduling import terminal
from scheduling.models import Execution, LogChunk

LINES_AT_ONCE = 1000
BYTES_AT_ONCE = 128 * 1024
# Of a longer line only both its ends are read and shown, so many characters of each.
LINE_HEAD, LINE_TAIL = 12 * 1024, 4 * 1024
# More than anybody steps through; beyond them only the count goes on.
HITS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line begins: the line of this number, behind `skip` line ends of the chunk `sequence`.

    The default is in front of everything.
    """

    sequence: int = -1
    skip: int = 0
    line: int = 1

    def __str__(self) -> str:
        return f"{self.sequence}.{self.skip}.{self.line}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """The place that `str` wrote, or None."""
        found = re.fullmatch(r"(-1|\d{1,9})\.(\d{1,9})\.([1-9]\d{0,8})", text, re.ASCII)
        return cls(*map(int, found.groups())) if found else None


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was written, escape sequences and all, and when its beginning was stored.

    `style` is the terminal's where it begins. Of a line that is too long `unread` bytes are left out between
    `text` and `rest`.
    """

    number: int
    text: str
    at: datetime
    style: terminal.Style = terminal.PLAIN
    unread: int = 0
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """So many bytes were not kept, before the line of this number."""

    number: int
    dropped_bytes: int


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive lines of a log; `last_line` is the number of the log's last line.

    `end` is where reading goes on: behind the last line that has its end. A line without one is read again,
    with whatever was added to it. `sequence` is the last chunk of the log (-1: none).
    """

    entries: list[Line | Gap] = field(default_factory=list)
    end: Place = Place()
    sequence: int = -1
    last_line: int = 0

    @property
    def first(self) -> int:
        return self.entries[0].number if self.entries else 1

    @property
    def last(self) -> int:
        last = self.entries[-1] if self.entries else None
        # A gap bears the number of the line behind it.
        return 0 if last is None else last.number - isinstance(last, Gap)

    @property
    def earlier(self) -> bool:
        """Whether there are lines before it."""
        return self.first > 1

    @property
    def later(self) -> bool:
        """Whether there are lines behind it by now."""
        return self.last < self.last_line


@dataclass(slots=True)
class _Row:
    """What is known of a chunk without reading it: `before` counts the line ends in front of it.

    `starts`: a line begins where it begins. `inside`: it is only the inside of a line that is too long.
    """

    sequence: int
    dropped: int
    octets: int
    ends: int
    closed: bool
    before: int = 0
    starts: bool = True
    inside: bool = False

    @property
    def first_begun(self) -> int | None:
        """The number of the first line that begins in it."""
        if self.starts:
            return self.before + 1
        return self.before + 2 if self.ends else None


class Index:
    """Which line begins in which chunk, for the part of a log that begins at `start`.

    One query, whose answer is a few numbers a chunk: PostgreSQL counts the line ends.
    """

    def __init__(self, execution: Execution, start: Place | None = None) -> None:
        self._start = start or Place()
        self._chunks = LogChunk.objects.filter(execution=execution).order_by("sequence")
        self._rows = [_Row(*values) for values in self._measured()]
        before, closed = self._start.line - 1 - self._start.skip, True
        for row in self._rows:
            if row.dropped and not closed:
                # Nothing goes on behind a gap: the line in front of it ends there.
                before, closed = before + 1, True
            row.before, row.starts = before, closed
            before += row.ends
            closed = row.closed if row.octets else closed
        self.last_line = before + (0 if closed else 1)
        self.sequence = self._rows[-1].sequence if self._rows else self._start.sequence
        self._begun = [(row.first_begun, at) for at, row in enumerate(self._rows) if row.first_begun]
        for first, behind in self._insides():
            for row in self._rows[first:behind]:
                row.inside = True

    def _measured(self) -> Any:
        def number(sql: str) -> Func:
            # They come as numbers. As an IntegerField each would be made one again, thousands a page.
            return Func(F("text"), template=sql, output_field=Field())

        # The size of a stored text is known without reading it.
        octets = number("octet_length(%(expressions)s)")
        ends = number("octet_length(%(expressions)s) - octet_length(replace(%(expressions)s, chr(10), ''))")
        closed = Func(F("text"), template="right(%(expressions)s, 1) = chr(10)", output_field=BooleanField())
        rows = self._chunks.filter(sequence__gte=self._start.sequence)
        return rows.values_list("sequence", "dropped_bytes", octets, ends, closed)

    def _insides(self) -> Iterator[tuple[int, int]]:
        """The ranges of chunks that are only the inside of a line that is too long to be read whole."""
        first = None
        for at, row in enumerate([*self._rows, None]):
            if row is not None and not row.ends and not row.starts:
                first = at if first is None else first
                continue
            if first is not None:
                # The end of the line is behind the range, or else its last chunk.
                behind = at - 1 if row is None or row.starts else at
                if sum(each.octets for each in self._rows[first:behind]) > BYTES_AT_ONCE // 2:
                    yield first, behind
            first = None

    # --- windows ---

    def tail(self) -> Window:
        """The last lines."""
        return self.before(self.last_line + 1)

    def before(self, line: int) -> Window:
        """The lines that end just before number `line`."""
        stop = min(line, self.last_line + 1)
        left, first = BYTES_AT_ONCE, stop
        for row in reversed(self._rows):
            if row.before + 1 >= stop and not (row.dropped and stop > self.last_line):
                continue
            left -= 0 if row.inside else row.octets
            begun = row.first_begun
            if begun is not None and begun < stop:
                first = begun
                if left <= 0 or stop - first >= LINES_AT_ONCE:
                    break
        return self._read(max(first, stop - LINES_AT_ONCE), stop, octets=None)

    def starting(self, line: int) -> Window:
        """The lines from number `line` on; the tail when there is no such line."""
        if line > self.last_line:
            return self.tail()
        stop = min(line + LINES_AT_ONCE, self.last_line + 1)
        window = self._read(line, stop, octets=BYTES_AT_ONCE)
        entries = window.entries
        while entries and isinstance(entries[-1], Gap) and entries[-1].number <= self.last_line:
            # It belongs to the line behind it, with which the next window begins.
            entries.pop()
        return window

    def new(self) -> Window:
        """The lines from where the index begins on."""
        stop = min(self._start.line + LINES_AT_ONCE, self.last_line + 1)
        return self._read(self._start.line, stop, octets=BYTES_AT_ONCE)

    def _read(self, first: int, stop: int, *, octets: int | None) -> Window:
        begin, rows = self._needed(first, stop, octets)
        reader = _Reader(first, stop, last_line=self.last_line, gap_shown=self._start.sequence)
        if rows:
            wanted = [row.sequence for row in rows if not row.inside]
            # The one in front tells in which colour the first one begins.
            found = self._chunks.filter(sequence__in=[wanted[0] - 1, *wanted])
            texts = {
                sequence: (text, at)
                for sequence, text, at in found.values_list("sequence", "text", "written_at")
            }
            reader.style = terminal.style_after(texts.get(wanted[0] - 1, ("",))[0], terminal.PLAIN)
            for row in rows:
                reader.read(row, *texts.get(row.sequence, ("", None)))
            behind = begin + len(rows)
            if behind == len(self._rows) or self._rows[behind].starts:
                reader.finish(rows[-1], closed=behind < len(self._rows))
        return Window(reader.entries, reader.end or self._start, self.sequence, self.last_line)

    def _needed(self, first: int, stop: int, octets: int | None) -> tuple[int, list[_Row]]:
        """The chunks that hold the lines from `first` on, up to `stop` or until so many `octets` are read.

        The first of them is the chunk of that position.
        """
        at = bisect_right(self._begun, (first, len(self._rows))) - 1
        begin = self._begun[at][1] if at >= 0 else 0
        while (
            begin and self._rows[begin - 1].dropped and self._rows[begin - 1].before == self._rows[begin].before
        ):
            begin -= 1
        needed = []
        for row, following in zip_longest(self._rows[begin:], self._rows[begin + 1 :]):
            if row.before + 1 >= stop and not (stop > self.last_line or row.before + 1 == first):
                break
            needed.append(row)
            if octets is None or row.inside:
                continue
            octets -= row.octets
            # Enough is at least a line with its end. A gap at the end of the log is read with its last line.
            enough = octets <= 0 and first <= row.before + row.ends and row.octets
            if enough and following is not None and following.before < self.last_line:
                break
        return begin, needed


class _Reader:
    """Puts chunks together to lines."""

    def __init__(self, first: int, stop: int, *, last_line: int, gap_shown: int) -> None:
        self.entries: list[Line | Gap] = []
        self.end: Place | None = None
        self.style = terminal.PLAIN
        self._first, self._stop, self._last_line = first, stop, last_line
        # Who reads on from a place has seen the gap in front of its chunk.
        self._gap_shown = gap_shown
        self._number = 0
        self._at: datetime | None = None
        self._head: list[str] = []
        self._rest: list[str] = []
        self._unread = 0

    def read(self, row: _Row, text: str, at: datetime | None) -> None:
        if row.inside:
            self._unread += row.octets
            return
        if self._number == 0:
            self._number = row.before + 1
            self.end = Place(row.sequence, 0, self._number) if row.starts else None
        if row.dropped:
            if self._begun():
                self._emit()
                self.end = Place(row.sequence, 0, self._number)
            self._gap(row)
        for ends, piece in enumerate(text.split("\n")):
            if ends:
                self._emit()
                if self._number <= self._stop:
                    self.end = Place(row.sequence, ends, self._number)
            if not self._begun():
                self._at = at
            (self._rest if self._unread else self._head).append(piece)

    def finish(self, row: _Row, *, closed: bool) -> None:
        """Nothing goes on behind `row`: what was begun is a line too, and has its end if a gap is there."""
        if self._begun():
            self._emit()
            if closed and self._number <= self._stop:
                self.end = Place(row.sequence, row.ends + 1, self._number)

    def _begun(self) -> bool:
        return bool(self._unread) or any(self._head)

    def _gap(self, row: _Row) -> None:
        wanted = self._first <= self._number < self._stop or self._stop > self._last_line < self._number
        if wanted and row.sequence > self._gap_shown:
            self.entries.append(Gap(self._number, row.dropped))
            self.end = Place(row.sequence, 0, self._number)

    def _emit(self) -> None:
        head, rest = "".join(self._head), "".join(self._rest)
        if self._first <= self._number < self._stop and self._at is not None:
            self.entries.append(_line(self._number, head, rest, self._unread, self._at, self.style))
        self.style = terminal.style_after(rest, terminal.style_after(head, self.style))
        self._number += 1
        self._head, self._rest, self._unread = [], [], 0


def _line(number: int, head: str, rest: str, unread: int, at: datetime, style: terminal.Style) -> Line:
    if not unread and len(head) <= LINE_HEAD + LINE_TAIL:
        return Line(number, head, at, style)
    whole = rest if unread else head
    tail = whole[-LINE_TAIL:]
    _, overwrites, shown = tail.rstrip("\r").partition("\r")
    if overwrites:
        # A progress bar: what stood there before is not seen any more.
        return Line(number, shown, at, style)
    kept = head[:LINE_HEAD]
    unread += len(head) + len(rest) - len(kept) - len(tail)
    return Line(number, kept, at, style, unread, tail)


# --- the whole of it -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """How many lines hold what was searched for, and the numbers of the first of them."""

    count: int = 0
    lines: list[int] = field(default_factory=list)


def pattern(wanted: str) -> re.Pattern[str]:
    """What a search for `wanted` looks for: the text as it is, in either case."""
    return re.compile(re.escape(wanted), re.IGNORECASE)


def search(execution: Execution, wanted: str) -> Found:
    """The lines of the whole log that hold `wanted`, by what is visible of them."""
    looked_for = pattern(wanted)
    lines: list[int] = []
    count = 0
    for number, text in _stretches(execution):
        seen = terminal.plain(text)
        position, line = 0, number
        while match := looked_for.search(seen, position):
            line += seen.count("\n", position, match.start())
            count += 1
            if len(lines) < HITS_KEPT:
                lines.append(line)
            # On with the next line: each counts once.
            position = seen.find("\n", match.end()) + 1
            line += 1
            if not position:
                break
    return Found(count, lines)


def _stretches(execution: Execution) -> Iterator[tuple[int, str]]:
    """The log in stretches of whole lines, each with the number of its first."""
    number, parts = 1, list[str]()
    for text, dropped, _at in _stream(execution):
        if dropped and any(parts):
            yield number, "".join(parts)
            number, parts = number + 1, []
        cut = text.rfind("\n") + 1
        if not cut:
            parts.append(text)
            continue
        stretch = "".join([*parts, text[:cut]])
        yield number, stretch
        number += stretch.count("\n")
        parts = [text[cut:]]
    if any(parts):
        yield number, "".join(parts)


def download(execution: Execution) -> Iterator[str]:
    """The whole log as it was written, with its gaps said in words, in pieces of at most 64 KiB."""
    for text, dropped, _at in _stream(execution):
        if dropped:
            yield "\n" + gap_in_words(dropped) + "\n"
        yield text


def gap_in_words(dropped_bytes: int) -> str:
    """How much of a log was not kept, and why."""
    limits = settings.TAILRACE["LOG_HEAD_BYTES"], settings.TAILRACE["LOG_TAIL_BYTES"]
    return _("… %(size)s not kept here: of one log the first %(head)s and the last %(tail)s are …") % {
        "size": filesizeformat(dropped_bytes),
        "head": filesizeformat(limits[0]),
        "tail": filesizeformat(limits[1]),
    }


def _stream(execution: Execution) -> Any:
    chunks = LogChunk.objects.filter(execution=execution).order_by("sequence")
    # A few at a time, so that no log is ever held whole.
    return chunks.values_list("text", "dropped_bytes", "written_at").iterator(chunk_size=8)
