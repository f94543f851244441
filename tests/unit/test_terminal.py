import time

import pytest

from scheduling import terminal
from scheduling.terminal import screen


def shown(line: str, style: str = "") -> str:
    return terminal.text_of(screen(line, style)[0])


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("plain", "plain"),
        ("windows line\r", "windows line"),
        ("10 %\r20 %\r30 %", "30 %"),
        ("a long line\rshort", "shortg line"),
        ("a long line\r\x1b[Kshort", "short"),
        ("a long line\x1b[2K\rgone", "gone"),
        ("a long line\r\x1b[1Kx", "x long line"),
        ("|\x08/\x08-\x08done", "done"),
        ("waiting\r", "waiting"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\ text", "link text"),
        ("\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07", "link"),
        ("up\x1b[2A and \x1b[?25lhidden\x1b(B cursor", "up and hidden cursor"),
        ("bell\x07 null\x00 del\x7f c1\x9b", "bell null del c1"),
        ("tab\tstays", "tab\tstays"),
        ("unfinished \x1b[3", "unfinished 3"),
        ("unfinished \x1b", "unfinished "),
        ("进度 10%\r进度 20%", "进度 20%"),
    ],
)
def test_a_line_shows_what_a_terminal_would(line: str, seen: str) -> None:
    assert shown(line).rstrip() == seen.rstrip()


def test_styles_are_runs_that_go_on_over_the_end_of_the_line() -> None:
    runs, after = screen("a\x1b[31mred \x1b[1mbold\x1b[0m plain\x1b[32m")
    assert runs == [("", "a"), ("31", "red "), ("31;1", "bold"), ("", " plain")]
    assert after == "32"
    assert screen("next", after) == ([("32", "next")], "32")


def test_what_is_overwritten_loses_its_style_with_it() -> None:
    runs, after = screen("\x1b[31mred\r\x1b[32mg\x1b[0m")
    assert runs == [("31;32", "g"), ("31", "ed")]
    assert after == ""


@pytest.mark.parametrize(
    ("sequence", "style"),
    [
        ("38;5;1", "31"),
        ("38;5;9", "91"),
        ("48;5;2", "42"),
        ("38;5;196", "91"),
        ("38;5;244", "90"),
        ("38;5;255", "37"),
        ("38;2;0;200;0", "32"),
        ("38:2:255:255:255", "97"),
        ("48;2;0;0;0;1", "40;1"),
        ("38;5;300", ""),
        ("38;5", ""),
        ("38", ""),
        ("1;0", ""),
        ("", ""),
        ("99999999999999", "9999"),
    ],
)
def test_colours_of_256_and_of_rgb_become_one_of_the_sixteen(sequence: str, style: str) -> None:
    assert screen(f"\x1b[{sequence}mx")[1] == style


def test_a_style_stays_short_whatever_is_set() -> None:
    style = ""
    for number in range(1000):
        style = screen(f"\x1b[{number % 60 + 1}mx", style)[1]
    assert len(style) < 60


def test_a_line_of_many_overwrites_is_quick() -> None:
    began = time.process_time()
    assert shown("\r\x1b[32m" + "\r".join(f"{n:5d} of 3000" for n in range(1200))) == " 1199 of 3000"
    assert time.process_time() - began < 1
