"""Laws of the splitter: a script split here does on a server as the script sent whole does."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq

from config import database
from scheduling.kinds.statements import StatementError, split


@pytest.fixture(scope="module")
def server() -> Iterator[psycopg.Connection[Any]]:
    with database.available() as url:
        assert url is not None
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET client_min_messages = error")
            connection.execute("CREATE TEMPORARY TABLE t (a int)")
            connection.execute("SET search_path = pg_temp, pg_catalog")
            yield connection


# Pieces that end, begin or hide something in one state of the scanner or another.
PIECES = ["'", "''", '"', '""', "\\", "\\'", "\\\\", "$$", "$a$", "$é$", "$1", "--", "/*", "*/", "-", "*", "/"]
PIECES += [
    ";",
    "(",
    ")",
    ",",
    "a",
    "e",
    "E",
    "1",
    "é",
    "\u00a0",
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\f",
    "%",
    "%%",
    "% ",
]
PIECES += ["end", "begin atomic", "case", "$", "&", "U&", "E'", "e'\\''", "N'", "B'1'", "x'f'", "U&'", 'U&"']

soup = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
line_comments = soup.map(lambda text: "--" + text.replace("\n", "").replace("\r", ""))
comments = soup.map(lambda text: f"/*{text.replace('/*', '').replace('*/', '')}*/").filter(
    lambda text: "/*" not in text[2:-2] and "*/" not in text[2:-2] and text[2:3] != "/" and text[-3:-2] != "/"
)
nested = st.recursive(
    comments, lambda inner: st.lists(inner, max_size=2).map(lambda some: f"/*{' '.join(some)}*/")
)
newlines = st.sampled_from(["\n", "\r", "\r\n", "\n \t", "\r\f\n"])
gaps = st.lists(st.one_of(newlines, nested, st.tuples(line_comments, newlines).map("".join), st.just(" "))).map(
    lambda some: " " + "".join(some)
)
continuing = st.tuples(
    st.one_of(st.just(" "), line_comments), newlines, st.sampled_from(["", " ", "\n-- ';\n", "\r--\r"])
).map("".join)

plain = soup.map(lambda text: "'" + text.replace("'", "''") + "'")
escaped = soup.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")


def continued(prefixes: list[str], bodies: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    more = st.lists(st.tuples(continuing, bodies).map("".join), max_size=2).map("".join)
    return st.tuples(st.sampled_from(prefixes), bodies, more).map("".join)


texts = st.one_of(
    continued(["", "N", "n"], plain),
    continued(["E", "e"], escaped),
    continued(["U&", "u&"], plain.filter(lambda text: "\\" not in text)),
    continued(["B", "x"], st.sampled_from(["'1'", "''"])),
    st.tuples(st.sampled_from(["$$", "$a$", "$é_1$"]), soup)
    .filter(lambda both: "$" not in both[1])
    .map(lambda both: both[0] + both[1] + both[0]),
    soup.map(lambda text: '1 AS "a' + text.replace('"', '""') + '"'),
    st.sampled_from(
        ["1", "(1)", "1 AS a$b$", "7 % 2", "case when true then 1 end", "1 AS begin", "1 AS é\u00a0"]
    ),
)
selects = st.tuples(gaps, st.lists(st.tuples(texts, gaps).map("".join), min_size=1, max_size=3)).map(
    lambda both: "SELECT" + both[0] + ",".join(both[1])
)
bodies = st.lists(st.tuples(gaps, selects, st.just(";")).map("".join), max_size=3).map("".join)
rest = st.sampled_from(["", "; SELECT 1 AS end; SELECT case when true then 1 end; "])
routines = st.tuples(
    st.sampled_from(["CREATE FUNCTION", "create or replace procedure"]), gaps, bodies, rest
).map(
    lambda parts: (
        f"{parts[0]}{parts[1]} pg_temp.begin(atomic int)"
        f"{' RETURNS SETOF record' if parts[0].isupper() else ''} BEGIN{parts[1]} ATOMIC{parts[2]}{parts[3]}"
        f"{parts[1]}END"
    )
)
rules = st.tuples(gaps, selects, selects).map(
    lambda parts: f"CREATE OR REPLACE RULE r AS ON INSERT TO t DO ({parts[1]};{parts[2]}){parts[0]}"
)
scripts = st.lists(
    st.tuples(gaps, st.one_of(selects, routines, rules, st.just(""))).map("".join), max_size=4
).map(";".join)


def outcome(result: Any) -> tuple[Any, ...]:
    """A result as the client sees it: names of columns, rows and status."""
    columns = range(result.nfields)
    rows = [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]
    return (result.command_status, tuple(result.fname(column) for column in columns), rows)


def sent(server: psycopg.Connection[Any], queries: list[str]) -> list[tuple[Any, ...]] | None:
    """The outcomes of queries in one transaction that is rolled back; None when the server refuses one."""
    link = server.pgconn
    link.exec_(b"BEGIN")
    try:
        found = []
        for query in queries:
            link.send_query(query.encode())
            while (result := link.get_result()) is not None:
                if result.status == pq.ExecStatus.FATAL_ERROR:
                    while link.get_result() is not None:
                        pass
                    return None
                if result.status != pq.ExecStatus.EMPTY_QUERY:
                    found.append(outcome(result))
        return found
    finally:
        link.exec_(b"ROLLBACK")


def sent_split(server: psycopg.Connection[Any], script: str) -> list[tuple[Any, ...]] | None:
    try:
        statements = split(script)
    except StatementError:
        return None
    cursor = psycopg.ClientCursor(server)
    return sent(server, [cursor.mogrify(statement.query, {}) for statement in statements])


@settings(max_examples=300, deadline=None)
@given(script=scripts)
def test_a_valid_script_does_split_as_it_does_whole(server: psycopg.Connection[Any], script: str) -> None:
    assert sent_split(server, script) == sent(server, [script])


@settings(max_examples=300, deadline=None)
@given(script=st.lists(st.sampled_from(["SELECT ", "SELECT 1;", *PIECES]), max_size=14).map("".join))
def test_any_script_does_split_as_it_does_whole(server: psycopg.Connection[Any], script: str) -> None:
    assert sent_split(server, script) == sent(server, [script])
