"""SQL jobs: a script on a named PostgreSQL connection, in one transaction.

`connection: warehouse` is the URL in the node's environment variable TAILRACE_SQL_WAREHOUSE. In the
script `%(name)s` is the value of a parameter or a built-in, with the right quotes around it; every
other `%` is itself. It all commits or nothing does, unless `autocommit: true` lets each statement
stand alone (VACUUM, CREATE DATABASE, one's own BEGIN). A stop or a time-out cancels the running
statement on the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import psycopg
from django.utils.translation import gettext as _
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.generators import fetch
from psycopg.sql import Literal
from psycopg.types.json import Jsonb

from scheduling import reasons
from scheduling.jobs import JobContext, JobFailed, JobStopped
from scheduling.kinds.base import Kind, SpecReader
from scheduling.kinds.statements import Statement, StatementError, split
from scheduling.reasons import in_words, said

SHOWN_ROWS = 50
_SHOWN_WIDTH = 60
_ROWS_AT_ONCE = 500
_POLL = 0.05
_CONNECT_TIMEOUT = 10
_PREFIX = "TAILRACE_SQL_"
_CONNECTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_OWN_TRANSACTION = re.compile(
    r"(begin|(start|prepare) transaction|commit|end|abort|rollback(?! to\b)(?! (work|transaction) to\b))\b"
)
_SPACES = re.compile(r"\s+")


class SqlKind(Kind):
    """Runs `sql` on `connection`."""

    name: ClassVar[str] = "sql"
    fields: ClassVar[Mapping[str, bool]] = {"connection": True, "sql": True, "autocommit": False}
    uses_connection: ClassVar[bool] = False

    def clean(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.clean`. The connection must be known where the task is saved, too."""
        reader = SpecReader(self, spec)
        connection = reader.text("connection")
        if connection is not None and (problem := _connection_problem(connection)):
            reader.errors["connection"] = in_words(problem)
        sql = reader.text("sql")
        autocommit = reader.flag("autocommit")
        if sql is not None and (problem := _script_problem(sql, autocommit=bool(autocommit))):
            reader.errors["sql"] = problem
        return reader.finish(connection=connection, sql=sql, autocommit=autocommit or None)

    def run(self, spec: Mapping[str, Any], context: JobContext) -> dict[str, int]:
        """See `Kind.run`. The result is `{"rows": of the last statement, "statements": how many}`."""
        name = spec["connection"]
        if problem := _connection_problem(name):
            raise JobFailed(problem)
        url = os.environ[_variable(name)]
        context.log.redact(url, *_passwords(url))
        statements = split(spec["sql"])
        values = _values(statements, context.parameters, context.builtins)
        with _connected(name, url, context) as connection, _cancelled_on_stop(connection, context):
            return _Script(connection, statements, values, context).run(
                autocommit=spec.get("autocommit", False)
            )

    def rendered(
        self, spec: Mapping[str, Any], parameters: Mapping[str, Any], builtins: Mapping[str, Any]
    ) -> str:
        """See `Kind.rendered`: the statements as the server gets them."""
        statements = split(spec["sql"])
        values = _values(statements, parameters, builtins)
        literals = {name: Literal(value).as_string(None) for name, value in values.items()}
        return ";\n".join(statement.query.strip() % literals for statement in statements)


class _Script:
    """The statements of one run on one connection."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        statements: Sequence[Statement],
        values: Mapping[str, Any],
        context: JobContext,
    ) -> None:
        self.connection = connection
        self.statements = statements
        self.values = values
        self.context = context
        self.rows = 0

    def run(self, *, autocommit: bool) -> dict[str, int]:
        try:
            if not autocommit:
                self._send("BEGIN")
            for number, statement in enumerate(self.statements, 1):
                self.context.check_stop()
                self._run_one(number, statement)
            if not autocommit:
                self.context.check_stop()
                self._commit()
        except psycopg.OperationalError as error:
            if self.context.stop_requested and isinstance(error, psycopg.errors.QueryCanceled):
                raise JobStopped from error
            raise JobFailed(_described(error, self.context)) from error
        except psycopg.Error as error:
            raise JobFailed(_described(error, self.context)) from error
        except BaseException:
            _cancel_and_wait(self.connection, self.context)
            raise
        return {"rows": self.rows, "statements": len(self.statements)}

    def _run_one(self, number: int, statement: Statement) -> None:
        began = time.monotonic()
        place = f"[{number}/{len(self.statements)}, line {statement.line}]"
        if statement.backslash and self._parameter("standard_conforming_strings") != "on":
            raise JobFailed(said(reasons.STRINGS_NOT_STANDARD, line=statement.line))
        query = psycopg.ClientCursor(self.connection).mogrify(
            statement.query, {name: self.values[name] for name in statement.names}
        )
        try:
            done = self._send(query)
        except psycopg.Error:
            self.context.log.write(f"{place} failed after {time.monotonic() - began:.2f} s\n")
            raise
        self.context.log.write(f"{place} {done} ({time.monotonic() - began:.2f} s)\n")

    def _parameter(self, name: str) -> str:
        """A setting of the session, as the server last reported it."""
        return (self.connection.pgconn.parameter_status(name.encode()) or b"").decode()

    def _commit(self) -> None:
        """Commit; a server that answers ROLLBACK had refused something that the script caught itself."""
        if (done := self._send("COMMIT")) != "COMMIT":
            raise JobFailed(said(reasons.NOT_COMMITTED, answer=done))

    def _send(self, query: str) -> str:
        """Run one statement and return its status; of its rows the first few go to the log as they come.

        Rows are read in small portions, so that a SELECT of any size needs little memory.
        """
        link = self.connection.pgconn
        table = _Table()
        link.send_query(query.encode(self.connection.info.encoding))
        if pq.version() >= 170000:
            link.set_chunked_rows_mode(_ROWS_AT_ONCE)
        else:
            link.set_single_row_mode()
        done, failure = "", None
        while (result := self.connection.wait(fetch(link))) is not None:
            if result.status in {pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH}:
                # Nothing else ends a copy that nobody feeds.
                self.connection.close()
                raise JobFailed(said(reasons.COPY_REFUSED))
            if result.status == pq.ExecStatus.FATAL_ERROR:
                failure = psycopg.errors.error_from_result(result, self.connection.info.encoding)
                continue
            table.take(result)
            done = (result.command_status or b"").decode() or done
            if result.command_tuples is not None:
                self.rows = result.command_tuples
        if failure is not None:
            raise failure
        self.context.log.write(table.text())
        return done


class _Table:
    """The first rows of a result as a table of plain text."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows: list[list[str]] = []
        self._seen = 0

    def take(self, result: pq.abc.PGresult) -> None:
        columns = range(result.nfields)
        self._names = self._names or [_cell(result.fname(column)) for column in columns]
        for row in range(min(result.ntuples, SHOWN_ROWS - len(self._rows))):
            self._rows.append([_cell(result.get_value(row, column)) for column in columns])
        self._seen += result.ntuples

    def text(self) -> str:
        if not self._names:
            return ""
        widths = [max(map(len, column)) for column in zip(self._names, *self._rows, strict=True)]
        lines = [self._names, ["-" * width for width in widths], *self._rows]
        shown = "".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
            for line in lines
        )
        more = self._seen - len(self._rows)
        return shown + (f"({more:,} more rows not shown)\n" if more else "")


def _cell(value: bytes | None) -> str:
    if value is None:
        return "NULL"
    text = _SPACES.sub(" ", value.decode("utf-8", "replace"))
    return text if len(text) <= _SHOWN_WIDTH else text[: _SHOWN_WIDTH - 1] + "…"


@contextlib.contextmanager
def _connected(name: str, url: str, context: JobContext) -> Iterator[psycopg.Connection[Any]]:
    context.check_stop()
    name_there = f"tailrace {context.task} #{context.execution_id}"[:63]
    defaults: dict[str, Any] = {"application_name": name_there, "connect_timeout": _CONNECT_TIMEOUT}
    try:
        connection = psycopg.connect(
            make_conninfo("", **{**defaults, **conninfo_to_dict(url)}), autocommit=True
        )
    except psycopg.Error as error:
        problem = said(reasons.CONNECTION_SILENT, name=repr(name), error=str(error).strip())
        raise JobFailed(context.log.redacted(problem)) from error
    connection.add_notice_handler(
        lambda notice: context.log.write(f"{notice.severity}: {notice.message_primary}\n")
    )
    # Closing rolls back whatever did not commit.
    with contextlib.closing(connection):
        yield connection


@contextlib.contextmanager
def _cancelled_on_stop(connection: psycopg.Connection[Any], context: JobContext) -> Iterator[None]:
    """Cancel what the server runs for the block once a stop is asked."""
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if context.stop.wait(_POLL):
                with contextlib.suppress(psycopg.Error):
                    connection.cancel_safe(timeout=context.stop_grace)
                # It may have come between two statements: once more, until the block ends.
                done.wait(4 * _POLL)

    watcher = threading.Thread(target=watch, name="sql-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _cancel_and_wait(connection: psycopg.Connection[Any], context: JobContext) -> None:
    """Cancel the running statement and wait until the server says that it has ended."""
    link = connection.pgconn
    deadline = time.monotonic() + max(context.stop_grace, 1.0)
    with contextlib.suppress(psycopg.Error):
        if link.transaction_status == pq.TransactionStatus.ACTIVE:
            connection.cancel_safe(timeout=context.stop_grace)
        while link.transaction_status == pq.TransactionStatus.ACTIVE and time.monotonic() < deadline:
            select.select([link.socket], [], [], _POLL)
            link.consume_input()
            while not link.is_busy() and link.get_result() is not None:
                pass
        if link.transaction_status == pq.TransactionStatus.ACTIVE:
            context.log.write(
                "the server has not confirmed that it cancelled the statement; the connection is closed\n"
            )


def _values(
    statements: Sequence[Statement], parameters: Mapping[str, Any], builtins: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of every parameter that the script names; raises JobFailed for one that does not exist."""
    known = {**parameters, **builtins}
    for statement in statements:
        for name in sorted(statement.names - set(known)):
            raise JobFailed(
                said(
                    reasons.NO_SUCH_PARAMETER,
                    line=statement.line,
                    name=repr(name),
                    known=", ".join(sorted(known)),
                )
            )
    return {name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in known.items()}


def _described(error: psycopg.Error, context: JobContext) -> str:
    primary = error.diag.message_primary or str(error).strip() or type(error).__name__
    parts = [f"{type(error).__name__}: {primary}"]
    if error.diag.message_detail:
        parts.append(f"({error.diag.message_detail})")
    if error.diag.message_hint:
        parts.append(f"Hint: {error.diag.message_hint}")
    return context.log.redacted(" ".join(parts))


def _variable(name: str) -> str:
    return _PREFIX + name.upper().replace("-", "_")


def _connection_problem(name: str) -> str | None:
    """What is wrong with the connection `name`, as it is stored; never shows any of its URL."""
    url = os.environ.get(_variable(name)) if _CONNECTION_NAME.fullmatch(name) else None
    if url is None:
        known = sorted(key.removeprefix(_PREFIX).lower() for key in os.environ if key.startswith(_PREFIX))
        variable = _PREFIX + "<NAME>"
        if not known:
            return said(reasons.NO_CONNECTIONS, name=name, variable=variable)
        return said(reasons.NO_CONNECTION, name=name, known=", ".join(known), variable=variable)
    try:
        conninfo_to_dict(url)
        valid = urlsplit(url).scheme in {"postgres", "postgresql"}
    except (psycopg.ProgrammingError, ValueError):
        valid = False
    if not valid:
        return said(reasons.CONNECTION_NOT_URL, variable=_variable(name))
    return None


def _passwords(url: str) -> list[str]:
    """The password of a URL, as it is written there and as it is meant."""
    written = urlsplit(url).password or ""
    meant = str(conninfo_to_dict(url).get("password") or "")
    return [text for text in dict.fromkeys((written, unquote(written), meant)) if text]


def _script_problem(sql: str, *, autocommit: bool) -> str | None:
    try:
        statements = split(sql)
    except StatementError as error:
        return str(error)
    if not statements:
        return _("It holds no statement.")
    for statement in statements:
        if not autocommit and _OWN_TRANSACTION.match(statement.head):
            return _(
                "line %(line)s: the script is one transaction already; leave %(word)s out, or set autocommit."
            ) % {
                "line": statement.line,
                "word": statement.words[0].upper(),
            }
    return None
