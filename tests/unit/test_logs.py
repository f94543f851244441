import itertools
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.engine.logs import CHUNK_BYTES, LogSink


class Stored:
    """The chunks that a sink stored; fails as often as it is told to, keeping nothing then."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, str, int]] = []
        self.failures = 0

    def __call__(self, sequence: int, text: str, dropped: int) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the database is away")
        self.chunks.append((sequence, text, dropped))

    @property
    def text(self) -> str:
        return "".join(f"<gap {dropped}>" if dropped else text for _, text, dropped in self.chunks)


def sink(stored: Stored, *, head: int = 1000, tail: int = 100, redact: tuple[str, ...] = ()) -> LogSink:
    return LogSink(stored, head_bytes=head, tail_bytes=tail, redact=redact)


def logged(*writes: bytes | str, head: int = 1000, tail: int = 100, redact: tuple[str, ...] = ()) -> str:
    stored = Stored()
    log = sink(stored, head=head, tail=tail, redact=redact)
    for write in writes:
        log.write(write) if isinstance(write, str) else log.write_bytes(write)
    log.flush(final=True)
    return stored.text


def test_what_fits_is_kept_as_it_came() -> None:
    assert logged("one\n", b"two\n", "three") == "one\ntwo\nthree"


def test_output_beyond_the_head_and_the_tail_shows_how_much_is_missing() -> None:
    lines = [f"{n:09}\n" for n in range(1000)]

    assert logged(*lines) == "".join(lines[:100]) + "<gap 8900>" + "".join(lines[-10:])


def test_output_that_just_fits_head_and_tail_has_no_gap() -> None:
    assert logged("x" * 1100) == "x" * 1100
    assert "gap" in logged("x" * 1101)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd"), max_size=60)


@given(st.lists(_TEXT), st.integers(0, 80), st.integers(0, 80), st.lists(st.booleans()))
def test_head_gap_and_tail_account_for_every_byte(
    writes: list[str], head: int, tail: int, flushes: list[bool]
) -> None:
    stored = Stored()
    log = sink(stored, head=head, tail=tail)
    for text, flush in zip(writes, flushes + [False] * len(writes), strict=False):
        log.write(text)
        if flush:
            log.flush()
    log.flush(final=True)
    whole = "".join(writes)
    gaps = [sequence for sequence, _, dropped in stored.chunks if dropped]
    before = "".join(text for sequence, text, _ in stored.chunks if not gaps or sequence < gaps[0])
    after = "".join(text for sequence, text, _ in stored.chunks if gaps and sequence > gaps[0])

    assert [sequence for sequence, _, _ in stored.chunks] == list(range(len(stored.chunks)))
    assert len(gaps) <= 1
    assert whole.startswith(before)
    assert whole.endswith(after)
    dropped = sum(dropped for _, _, dropped in stored.chunks)
    assert len((before + after).encode()) + dropped == len(whole.encode())
    assert len(before.encode()) <= head or not gaps
    assert len(after.encode()) <= tail
    if len(whole.encode()) <= head:
        assert before == whole


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)), st.integers(0, 300))
def test_bytes_that_are_no_text_are_shown_with_replacements_however_they_are_split(
    data: bytes, cuts: list[int], head: int
) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]

    assert logged(*pieces, head=head, tail=1000) == data.decode("utf-8", "replace").replace("\0", "\ufffd")


def test_a_character_split_over_writes_and_flushes_stays_whole() -> None:
    stored = Stored()
    log = sink(stored)
    for byte in "流程 ✓".encode():
        log.write_bytes(bytes([byte]))
        log.flush()
    log.flush(final=True)

    assert stored.text == "流程 ✓"
    assert "\ufffd" not in stored.text


def test_an_escape_sequence_is_not_cut_by_a_flush() -> None:
    stored = Stored()
    log = sink(stored)
    log.write("red: \x1b[3")
    log.flush()
    log.write("1mfailed\x1b[0m")
    log.flush(final=True)

    assert [text for _, text, _ in stored.chunks] == ["red: ", "\x1b[31mfailed\x1b[0m"]


def test_a_line_of_a_megabyte_is_stored_in_chunks_of_bounded_size() -> None:
    stored = Stored()
    log = sink(stored, head=2 * 1024 * 1024)
    log.write("x" * 1024 * 1024 + "\nend\n")
    log.flush(final=True)

    assert stored.text == "x" * 1024 * 1024 + "\nend\n"
    assert max(len(text.encode()) for _, text, _ in stored.chunks) <= CHUNK_BYTES


def test_binary_output_too_is_stored_in_chunks_of_bounded_size() -> None:
    stored = Stored()
    log = sink(stored, head=1024 * 1024)
    log.write_bytes(b"\xff\xfe\0" * 100_000)
    log.flush(final=True)

    assert max(len(text.encode()) for _, text, _ in stored.chunks) <= CHUNK_BYTES
    assert len(stored.text) == 300_000


def test_chunks_end_at_a_line_when_one_is_near() -> None:
    stored = Stored()
    log = sink(stored, head=1024 * 1024)
    log.write("a line of this log\n" * 20_000)
    log.flush(final=True)

    assert len(stored.chunks) > 3
    assert all(text.endswith("\n") for _, text, _ in stored.chunks)


def test_a_store_that_fails_loses_and_repeats_nothing() -> None:
    stored = Stored()
    log = sink(stored, head=500_000)
    log.write("first\n")
    stored.failures = 2
    for _ in range(2):
        with pytest.raises(ConnectionError):
            log.flush()
        log.write("more\n" * 30_000)
    log.flush(final=True)

    assert stored.text == "first\n" + "more\n" * 60_000
    assert stored.chunks[0] == (0, "first\n", 0)


def test_a_chunk_whose_store_failed_is_offered_again_unchanged() -> None:
    offered: list[tuple[int, str, int]] = []

    def committed_but_said_not(sequence: int, text: str, dropped: int) -> None:
        offered.append((sequence, text, dropped))
        if len(offered) == 1:
            raise ConnectionError("lost after the commit")

    log = LogSink(committed_but_said_not, head_bytes=1000, tail_bytes=100)
    log.write("a")
    with pytest.raises(ConnectionError):
        log.flush()
    log.write("b")
    log.flush()

    assert offered == [(0, "a", 0), (0, "a", 0), (1, "b", 0)]


def test_a_failing_final_flush_can_be_repeated_with_the_gap_and_the_tail() -> None:
    for failing in range(4):
        stored = Stored()
        log = sink(stored, head=10, tail=10)
        log.write("0123456789" + "x" * 80 + "abcdefghij")
        for _ in range(failing):
            stored.failures = 1
            with pytest.raises(ConnectionError):
                log.flush(final=True)
        log.flush(final=True)

        assert stored.text == "0123456789<gap 80>abcdefghij"


def test_a_second_final_flush_stores_nothing_more() -> None:
    stored = Stored()
    log = sink(stored, head=10, tail=10)
    log.write("0123456789" * 20)
    log.flush(final=True)
    before = list(stored.chunks)
    log.flush(final=True)

    assert stored.chunks == before


def test_ready_is_set_while_a_full_chunk_waits() -> None:
    stored = Stored()
    log = sink(stored, head=1024 * 1024)
    log.write("x" * (CHUNK_BYTES - 1))
    assert not log.ready.is_set()
    log.write("x")
    assert log.ready.is_set()
    assert log.pending == CHUNK_BYTES
    log.flush()
    assert not log.ready.is_set()
    assert log.pending == 0


def test_secrets_are_masked_also_in_what_is_kept_elsewhere() -> None:
    log = sink(Stored(), redact=("hunter2",))

    assert log.redacted("password hunter2 is wrong") == "password *** is wrong"
    assert logged("a hunter2 b hunter2", redact=("hunter2", "")) == "a *** b ***"


def test_a_secret_becomes_known_while_the_job_runs() -> None:
    stored = Stored()
    log = sink(stored)
    log.redact("hunter2")
    log.write("hunter2\n")
    log.flush(final=True)

    assert stored.text == "***\n"


@given(
    st.lists(st.sampled_from(["swordfish", "sword", "fish", "xsw", "s", "words", "流", " ", "\n"])),
    st.integers(1, 7),
    st.integers(0, 60),
)
def test_no_secret_is_shown_however_writes_split_it(words: list[str], size: int, head: int) -> None:
    data = "".join(words).encode()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]

    shown = logged(*pieces, head=head, tail=1000, redact=("swordfish", "流 流"))

    assert shown == "".join(words).replace("swordfish", "***").replace("流 流", "***")


def test_of_overlapping_secrets_none_is_shown() -> None:
    assert "xab" not in logged(b"xa", b"b", b"d", redact=("xab", "abc"))
    assert "abc" not in logged(b"a", b"b", b"c", redact=("ab", "abc"))


def test_a_gigabyte_passes_in_flat_memory() -> None:
    stored = Stored()
    log = sink(stored, head=1024 * 1024, tail=256 * 1024)
    piece = b"0123456789abcde\n" * 65_536
    tracemalloc.start()
    try:
        for _ in range(1024):
            log.write_bytes(piece)
        log.flush(final=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10 * 1024 * 1024
    assert sum(dropped for _, _, dropped in stored.chunks) == 1024**3 - 1024 * 1024 - 256 * 1024
    assert sum(len(text) for _, text, _ in stored.chunks) == 1024 * 1024 + 256 * 1024


def test_a_job_that_prints_byte_by_byte_needs_no_more_memory() -> None:
    log = sink(Stored(), head=0, tail=100)
    for _ in range(10_000):
        log.write_bytes(b"x")

    assert len(log._tail) <= 200


def test_writers_on_many_threads_lose_nothing_while_another_flushes() -> None:
    stored = Stored()
    log = sink(stored, head=10_000_000)
    writers = [
        threading.Thread(target=lambda n=n: [log.write(f"{n}:{i}\n") for i in range(2000)]) for n in range(4)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        log.flush()
    for writer in writers:
        writer.join()
    log.flush(final=True)

    assert sorted(stored.text.splitlines()) == sorted(f"{n}:{i}" for n in range(4) for i in range(2000))


def test_lone_surrogates_become_what_they_stood_for_or_a_question_mark() -> None:
    assert logged("caf\udcc3\udca9") == "café"
    assert logged("half \ud83d") == "half ?"
