"""Splits an SQL script into statements and finds its parameters, the way PostgreSQL reads it.

A parameter is `%(name)s`, outside quotes; every other `%` is itself (`LIKE 'a%'` needs no doubling).
Quotes, dollar quotes, nested comments and the bodies of `CREATE FUNCTION … BEGIN ATOMIC` hold their
semicolons. Pure; no Django.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<quote>[eE]'(?:[^'\\]|\\.|'')*+' | '(?:[^']|'')*+' | "(?:[^"]|"")*+")
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<hole>%\((?P<name>\w+)\)s)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<space>\s+)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_HOLE = re.compile(r"%\((\w+)\)s")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ROUTINE = re.compile(r"create (or replace )?(function|procedure)\b")


class StatementError(ValueError):
    """The script cannot be read; the message names the line."""


@dataclass(slots=True)
class Statement:
    """One statement: its text as psycopg takes it, first line, parameters, and first words in lower case."""

    line: int
    query: str = ""
    names: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)
    begun: bool = False

    @property
    def head(self) -> str:
        return " ".join(self.words)


class _Splitter:
    def __init__(self, script: str) -> None:
        self.script = script
        self.statements: list[Statement] = []
        self.now = Statement(1)
        self.parentheses = 0
        self.blocks = 0

    def split(self) -> list[Statement]:
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
            self._take(group, self.script[position:end], position)
            position = end
        self._finish()
        return self.statements

    def _take(self, group: str, text: str, position: int) -> None:
        now = self.now
        if group in {"space", "comment", "block"}:
            now.query += text.replace("%", "%%")
            return
        if text == ";" and not self.parentheses and not self.blocks:
            self._finish()
            return
        if not now.begun:
            now.begun, now.line = True, self._line(position)
        if group in {"quote", "dollar"} and (hole := _HOLE.search(text)):
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
        if group == "word":
            self._word(text.lower())
        elif text in "()":
            self.parentheses = max(0, self.parentheses + (1 if text == "(" else -1))
        now.query += text.replace("%", "%%")

    def _word(self, word: str) -> None:
        if len(self.now.words) < 4:
            self.now.words.append(word)
        if _ROUTINE.match(self.now.head):
            if word == "begin" or (word == "case" and self.blocks):
                self.blocks += 1
            elif word == "end" and self.blocks:
                self.blocks -= 1

    def _finish(self) -> None:
        if self.now.begun:
            self.statements.append(self.now)
        self.now, self.parentheses, self.blocks = Statement(1), 0, 0

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

    def _line(self, position: int) -> int:
        return self.script.count("\n", 0, position) + 1


def split(script: str) -> list[Statement]:
    """The statements of `script` in order; empty ones are left out. Raises StatementError."""
    return _Splitter(script).split()
