"""Reading a log by windows of lines, against the whole of it read naively."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from scheduling import logs
from scheduling.logs import Gap, Index, Line, Place
from scheduling.models import Execution, LogChunk
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def execution() -> Execution:
    return make.start(make.batch().instances.select_related("group", "node").get())


def write(execution: Execution, *chunks: str | int) -> None:
    """Store chunks behind those that are there: text, or a number for a gap of so many bytes."""
    at = LogChunk.objects.filter(execution=execution).count()
    LogChunk.objects.bulk_create(
        LogChunk(
            execution=execution,
            sequence=at + number,
            text="" if isinstance(chunk, int) else chunk,
            dropped_bytes=chunk if isinstance(chunk, int) else 0,
            written_at=timezone.now(),
        )
        for number, chunk in enumerate(chunks)
    )


def told(entries: list[Line | Gap]) -> list[tuple[int, str | int]]:
    return [(each.number, each.dropped_bytes if isinstance(each, Gap) else each.text) for each in entries]


def naive(chunks: list[str | int]) -> list[tuple[int, str | int]]:
    """Every line and gap of a log, by reading all of it."""
    entries: list[tuple[int, str | int]] = []
    number, open_line = 1, ""
    for chunk in chunks:
        if isinstance(chunk, int):
            if open_line:
                entries.append((number, open_line))
                number, open_line = number + 1, ""
            entries.append((number, chunk))
            continue
        *whole, open_line = (open_line + chunk).split("\n")
        for line in whole:
            entries.append((number, line))
            number += 1
    return [*entries, (number, open_line)] if open_line else entries


def appended(shown: list[tuple[int, Any]], news: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """What a page shows when it replaces the line that had no end and appends the others."""
    is_line = shown and isinstance(shown[-1][1], str)
    return shown[:-1] + news if is_line and news and news[0][0] == shown[-1][0] else shown + news


pieces = some.lists(
    some.one_of(
        some.text(alphabet="ab\n", min_size=1, max_size=12),
        some.text(alphabet="ab\n", min_size=1, max_size=12),
        some.integers(1, 5),
    ),
    max_size=12,
)


@pytest.mark.long
@given(chunks=pieces, cut=some.integers(0, 12), at_once=some.integers(1, 8), octets=some.integers(4, 200))
@example(chunks=["a", 1, "b"], cut=1, at_once=8, octets=200)
@example(chunks=["a\n", 1, "b\n"], cut=2, at_once=1, octets=4)
@example(chunks=["a", 1, "ab"], cut=1, at_once=1, octets=8)
@example(chunks=["abb", 1, "b", "a"], cut=3, at_once=3, octets=4)
@example(chunks=["\na\nbab\naa\n\na", 1], cut=0, at_once=2, octets=4)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_joined_are_the_whole_log(
    execution: Execution, chunks: list[str | int], cut: int, at_once: int, octets: int
) -> None:
    LogChunk.objects.all().delete()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "LINES_AT_ONCE", at_once)
        patch.setattr(logs, "BYTES_AT_ONCE", octets)
        # Long lines are another matter.
        patch.setattr(Index, "_insides", lambda self: iter(()))
        write(execution, *chunks[:cut])
        # A page that was opened before the rest was written, and reads on.
        window = Index(execution).tail()
        live = told(window.entries)
        write(execution, *chunks[cut:])
        expected = naive(chunks)
        window = Index(execution, window.end).new()
        while window.entries:
            live = appended(live, told(window.entries))
            if not window.later:
                break
            window = Index(execution, window.end).new()
        assert live == expected[len(expected) - len(live) :]

        window = Index(execution).tail()
        backwards = told(window.entries)
        while window.earlier:
            window = Index(execution).before(window.first)
            assert 0 < len([each for each in window.entries if isinstance(each, Line)]) <= at_once
            backwards = told(window.entries) + backwards
        assert backwards == expected

        window = Index(execution).starting(1)
        forwards = told(window.entries)
        while window.later:
            window = Index(execution).starting(window.last + 1)
            forwards += told(window.entries)
        assert forwards == expected


def test_every_line_can_be_gone_to(execution: Execution) -> None:
    write(execution, "one\ntw", "o\nthree", "\n", 7, "four\n")
    for number, text in enumerate(["one", "two", "three", "four"], start=1):
        entries = [each for each in Index(execution).starting(number).entries if isinstance(each, Line)]
        assert (entries[0].number, entries[0].text) == (number, text)
    assert Index(execution).starting(5).entries == Index(execution).tail().entries


def test_a_colour_goes_on_in_the_window_that_begins_below_it(execution: Execution) -> None:
    write(execution, "\x1b[31mred\nstill\n", "and here\n\x1b[0mplain\n")
    lines = {line.number: line.style for line in Index(execution).tail().entries if isinstance(line, Line)}
    assert lines == {1: "", 2: "31", 3: "31", 4: "31"}
    assert [line.style for line in Index(execution).starting(3).entries if isinstance(line, Line)] == [
        "31",
        "31",
    ]


def test_of_a_line_that_is_too_long_both_ends_are_read_and_the_rest_is_counted(execution: Execution) -> None:
    chunk = 64 * 1024
    write(execution, "first\n", "begin" + "x" * (chunk - 5), *["y" * chunk] * 10, "z" * 100 + "end\nlast\n")
    window = Index(execution).tail()
    first, long, last = window.entries
    assert isinstance(long, Line)
    assert (told([first]), told([last])) == ([(1, "first")], [(3, "last")])
    assert long.text.startswith("beginx")
    assert long.rest.endswith("zend")
    assert len(long.text) + long.unread + len(long.rest) == chunk * 11 + 103
    assert len(long.text) + len(long.rest) <= logs.LINE_HEAD + logs.LINE_TAIL


def test_a_progress_bar_without_end_is_read_as_it_stands(execution: Execution) -> None:
    write(execution, "loading\n", *[f"\r{number:6d} of 100000" * 400 for number in range(50)])
    _loading, bar = Index(execution).tail().entries
    assert isinstance(bar, Line)
    assert bar.text.endswith("    49 of 100000")
    assert len(bar.text) < logs.LINE_TAIL


def test_a_place_is_read_back_from_an_address_or_refused() -> None:
    assert Place.parse(str(Place(3, 2, 17))) == Place(3, 2, 17)
    for wrong in ("", "1.2", "1.2.0", "a.b.c", "1.2.3.4", "-2.2.3", "99999999999.1.1", "١.٢.٣"):
        assert Place.parse(wrong) is None


def test_a_search_counts_every_line_that_holds_it_however_it_is_written(execution: Execution) -> None:
    write(execution, "An err", "or\nno \x1b[31mEr\x1b[0mROR error\n", "fine\n", 9, "error", " at the end")
    found = logs.search(execution, "error")
    assert (found.count, found.lines) == (3, [1, 2, 4])
    assert logs.search(execution, "nowhere").count == 0
    assert logs.search(execution, "a.b").count == 0


def test_the_largest_log_is_opened_and_searched_in_no_time(execution: Execution) -> None:
    line = "2013-11-21 14:30:02 reading <flights> of carrier DL & UA\n"
    write(execution, *[line * (65536 // len(line))] * 20)
    began = time.process_time()
    window = Index(execution).tail()
    opened = time.process_time() - began
    assert len(window.entries) == 1000
    assert window.last == 20 * (65536 // len(line))
    began = time.process_time()
    assert logs.search(execution, "carrier dl").count == window.last
    searched = time.process_time() - began
    assert opened < 0.5
    assert searched < 1
