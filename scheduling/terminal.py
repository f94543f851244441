"""What a terminal would show of a job's output, line by line.

Colours and weights are kept as runs of text with a style, which carries over line ends as it does in a
terminal. A carriage return or a backspace overwrites, so a progress bar shows as it stood last. Whatever
else a terminal would obey (cursor moves, titles, links, character sets) is dropped.

No Django and no database here: `Style` is told by SGR parameters, and who renders gives them meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

type Style = str
"""SGR parameters since the last reset, such as `1;31`; empty: plain."""

type Run = tuple[Style, str]

PLAIN: Style = ""
SGR = re.compile(r"\x1b\[([0-9;:]*)m")
# CSI, OSC, DCS and their like up to their end (or to the end of the line), character sets, and the rest.
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"
    r"|[()*+\-./][@-~]"
    r"|[ -/]*[0-~]"
    r"|$)"
)
# C0 and C1 controls that nobody can see; tabs, returns and backspaces mean something, ESC is handled above.
_UNSEEN = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
# What moves within a line: return, backspace, erase in line.
_MOVE = re.compile(r"\r|\x08|\x1b\[([0-2]?)K")
_MOST_CODES = 12


def plain(text: str) -> str:
    """`text` without escape sequences and invisible characters, which is what can be searched."""
    if "\x1b" in text:
        text = ESCAPES.sub("", text)
    return _UNSEEN.sub("", text)


def style_after(text: str, style: Style) -> Style:
    """The style in force at the end of `text` that begins in `style`."""
    if "\x1b" in text:
        for match in SGR.finditer(text):
            style = _adjusted(style, match.group(1))
    return style


def screen(line: str, style: Style = PLAIN) -> tuple[list[Run], Style]:
    """What stands on the line in the end, as runs in order, and the style that the next line begins in."""
    line = line.rstrip("\r")
    after = style_after(line, style)
    if "\r" not in line and "\x08" not in line:
        return list(_runs(line, style)), after
    return _overwritten(line, style), after


def text_of(runs: list[Run]) -> str:
    """The characters of `runs` without their styles."""
    return "".join(text for _, text in runs)


def _runs(text: str, style: Style) -> Iterator[Run]:
    """Stretches of `text` between changes of style, in which nothing moves back."""
    if "\x1b" not in text:
        if seen := _UNSEEN.sub("", text):
            yield style, seen
        return
    position = 0
    for match in SGR.finditer(text):
        if seen := plain(text[position : match.start()]):
            yield style, seen
        style = _adjusted(style, match.group(1))
        position = match.end()
    if seen := plain(text[position:]):
        yield style, seen


def _overwritten(line: str, style: Style) -> list[Run]:
    """The line as cells, written from wherever the cursor stands."""
    cells: list[Run] = []
    at = 0
    position = 0
    moves: list[re.Match[str] | None] = [*_MOVE.finditer(line), None]
    for move in moves:
        piece = line[position : move.start() if move else len(line)]
        for run_style, text in _runs(piece, style):
            if at > len(cells):
                cells += [(PLAIN, " ")] * (at - len(cells))
            cells[at : at + len(text)] = [(run_style, letter) for letter in text]
            at += len(text)
        style = style_after(piece, style)
        if move is None:
            break
        position = move.end()
        match move.group():
            case "\r":
                at = 0
            case "\x08":
                at = max(0, at - 1)
            case erase if erase.endswith("2K"):
                cells.clear()
            case erase if erase.endswith("1K"):
                cells[:at] = [(PLAIN, " ")] * min(at, len(cells))
            case _:
                del cells[at:]
    return _joined(cells)


def _joined(cells: list[Run]) -> list[Run]:
    runs: list[Run] = []
    for style, letter in cells:
        if runs and runs[-1][0] == style:
            runs[-1] = (style, runs[-1][1] + letter)
        else:
            runs.append((style, letter))
    return runs


# --- colours ---------------------------------------------------------------------------------------


def _adjusted(style: Style, parameters: str) -> Style:
    """`style` after one SGR sequence: a reset empties it, colours of 256 and of RGB become one of the 16."""
    codes = style.split(";") if style else []
    given = [int(code[:4]) if code else 0 for code in parameters.replace(":", ";").split(";")]
    while given:
        code = given.pop(0)
        if code == 0:
            codes = []
        elif code in {38, 48}:
            colour = _extended(given)
            if colour is not None:
                codes.append(str(_code_of(colour, background=code == 48)))
        else:
            codes.append(str(code))
    # What is said later overrules what was said before, so the last few say it all.
    return ";".join(list(dict.fromkeys(reversed(codes)))[:_MOST_CODES][::-1])


def _extended(given: list[int]) -> int | None:
    """Take the rest of `38;5;n` or `38;2;r;g;b` from `given`; which of the 16 colours is nearest."""
    match given[:1]:
        case [5] if len(given) >= 2:
            colour = given[1]
            del given[:2]
            return _of_256(colour)
        case [2] if len(given) >= 4:
            red, green, blue = given[1:4]
            del given[:4]
            return _nearest(red, green, blue)
    given.clear()
    return None


def _of_256(colour: int) -> int | None:
    if colour < 16:
        return colour
    if colour < 232:
        levels = (0, 95, 135, 175, 215, 255)
        cube = colour - 16
        return _nearest(levels[cube // 36], levels[cube // 6 % 6], levels[cube % 6])
    if colour < 256:
        grey = 8 + 10 * (colour - 232)
        return _nearest(grey, grey, grey)
    return None


# xterm's own.
_SIXTEEN = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205)),
    *((229, 229, 229), (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255)),
    *((255, 0, 255), (0, 255, 255), (255, 255, 255)),
)


def _nearest(red: int, green: int, blue: int) -> int:
    def distance(colour: int) -> int:
        r, g, b = _SIXTEEN[colour]
        return 2 * (red - r) ** 2 + 4 * (green - g) ** 2 + 3 * (blue - b) ** 2

    return min(range(16), key=distance)


def _code_of(colour: int, *, background: bool) -> int:
    base = (30 if colour < 8 else 82) + (10 if background else 0)
    return base + colour
