"""Splits an SQL script into statements and finds its parameters, by the lexical rules of PostgreSQL.

A parameter is `%(name)s`, outside quotes; every other `%` is itself (`LIKE 'a%'` needs no doubling).
Quotes, dollar quotes, nested comments, parentheses and the bodies of `CREATE FUNCTION … BEGIN ATOMIC` hold
their semicolons. The rules are those of PostgreSQL's scan.l; tests/unit/test_statement_laws.py compares
the two on a server. Pure; no Django.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# PostgreSQL reads every character beyond ASCII as a letter; \w and \s of Python do not.
_LETTER = r"A-Za-z_\x80-\U0010ffff"
_TOKEN = re.compile(
    rf"""(?P<comment>--[^\n\r]*)
    | (?P<block>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*+')
    | (?P<quote>'(?:[^']|'')*+' | "(?:[^"]|"")*+")
    | (?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$)
    | (?P<hole>%\((?P<name>\w+)\)s)
    | (?P<word>[{_LETTER}][{_LETTER}0-9$]*)
    | (?P<space>[ \t\n\r\f\v]+)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
# A quote on a later line continues the quote before it, with the same escapes; comments may stand between.
_CONTINUED = re.compile(
    r"""(?:[ \t\f\v]|--[^\n\r]*+)*+ [\n\r] (?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+
    '(?:[^'\\]|\\.|'')*+(?P<end>')?""",
    re.VERBOSE | re.DOTALL,
)
_HOLE = re.compile(r"%\((\w+)\)s")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_ROUTINE = re.compile(r"create (or replace )?(function|procedure)\b")


class StatementError(ValueError):
    """The script cannot be read; the message names the line."""


@dataclass(slots=True)
class Statement:
    """One statement: its text as psycopg takes it, first line, parameters, and first words in lower case.

    `backslash`: a plain quote holds one, so that the statement is read rightly only while the server's
    standard_conforming_strings is on, as it is by default.
    """

    line: int
    query: str = ""
    names: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)
    begun: bool = False
    backslash: bool = False

    @property
    def head(self) -> str:
        return " ".join(self.words)


class _Splitter:
    def __init__(self, script: str) -> None:
        self.script = script
        self.statements: list[Statement] = []
        self.now = Statement(1)
        self.parentheses = 0
        self.body = False
        self.last = ""

    def split(self) -> list[Statement]:
        if "\0" in self.script:
            raise StatementError(
                f"line {self._line(self.script.index(chr(0)))}: PostgreSQL takes no NUL character"
            )
        position = 0
        while position < len(self.script):
            match = _TOKEN.match(self.script, position)
            assert match is not None and match.lastgroup  # noqa: PT018, S101 - the last branch takes anything
            group = "hole" if match["hole"] else match.lastgroup
            end = match.end()
            if group == "block":
                end = self._end_of_comment(match.start())
            elif group == "dollar":
                end = self._end_of_dollar_quote(match)
            elif group == "escaped":
                end = self._end_of_escaped(end)
            self._take(group, self.script[position:end], position)
            position = end
        self._finish()
        return self.statements

    def _take(self, group: str, text: str, position: int) -> None:
        now = self.now
        if group in {"space", "comment", "block"}:
            now.query += text.replace("%", "%%")
            return
        if text == ";" and not self.parentheses and not self.body:
            self._finish()
            return
        if not now.begun:
            now.begun, now.line = True, self._line(position)
        if group in {"quote", "escaped", "dollar"} and (hole := _HOLE.search(text)):
            raise StatementError(
                f"line {self._line(position + hole.start())}: {hole[0]} stands inside quotes; "
                "write it outside of them: a text gets quotes of its own"
            )
        if group == "hole":
            now.names.add(_HOLE.fullmatch(text)[1])  # type: ignore[index]
            now.query += text
            return
        if group == "other" and text in "'\"":
            raise StatementError(f"line {self._line(position)}: the quote {text} is never closed")
        if group == "quote" and text[0] == "'" and "\\" in text:
            now.backslash = True
        word = text.lower() if group == "word" else text
        if group == "word" and len(now.words) < 4:
            now.words.append(word)
        self._enter_or_leave(word)
        self.last = word
        now.query += text.replace("%", "%%")

    def _enter_or_leave(self, word: str) -> None:
        """Follow parentheses and the body of a routine, whose END stands where a statement would begin."""
        if word in {"(", ")"}:
            self.parentheses = max(0, self.parentheses + (1 if word == "(" else -1))
        elif word == "atomic" and self.last == "begin" and not self.parentheses:
            self.body = self.body or bool(_ROUTINE.match(self.now.head))
        elif word == "end" and self.last in {"atomic", ";"}:
            self.body = False

    def _finish(self) -> None:
        if self.now.begun:
            self.statements.append(self.now)
        self.now, self.parentheses, self.body, self.last = Statement(1), 0, False, ""

    def _end_of_comment(self, start: int) -> int:
        depth = 0
        for edge in _BLOCK_EDGE.finditer(self.script, start):
            depth += 1 if edge[0] == "/*" else -1
            if not depth:
                return edge.end()
        raise StatementError(f"line {self._line(start)}: the comment /* is never closed")

    def _end_of_dollar_quote(self, opening: re.Match[str]) -> int:
        end = self.script.find(opening[0], opening.end())
        if end < 0:
            raise StatementError(f"line {self._line(opening.start())}: the quote {opening[0]} is never closed")
        return end + len(opening[0])

    def _end_of_escaped(self, end: int) -> int:
        while continued := _CONTINUED.match(self.script, end):
            if not continued["end"]:
                raise StatementError(f"line {self._line(end)}: the quote ' on the next line is never closed")
            end = continued.end()
        return end

    def _line(self, position: int) -> int:
        return len(_NEWLINE.findall(self.script, 0, position)) + 1


def split(script: str) -> list[Statement]:
    """The statements of `script` in order; empty ones are left out. Raises StatementError."""
    return _Splitter(script).split()
