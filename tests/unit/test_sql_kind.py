"""SQL jobs on a real server: the one that DATABASE_URL names, or the embedded one."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django_q.exceptions import TimeoutException
from django_q.timeout import TimeoutHandler

from config import database
from scheduling.jobs import JobContext, JobFailed, JobStopped
from scheduling.kinds import SpecErrors, kind
from scheduling.kinds.statements import StatementError, split
from tests.unit.support import make_context, until


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with database.available() as url:
        assert url is not None
        ours = database.url_with_database(url, "tailrace_sql_jobs")
        database.create_database(ours)
        yield ours


@pytest.fixture
def warehouse(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """The connection `warehouse` of the jobs, seen from outside."""
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        yield connection


def run(sql: str, context: JobContext | None = None, **spec: Any) -> Any:
    chosen = kind("sql")
    return chosen.run(chosen.clean({"connection": "warehouse", "sql": sql, **spec}), context or make_context())


def running(outside: psycopg.Connection[Any]) -> int:
    """How many statements of jobs the server is running."""
    row = outside.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tailrace ex%' AND state = 'active'"
    ).fetchone()
    return int(row[0]) if row else 0


# Reading scripts


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ; ;; -- nothing\n /* here; */", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', E'\\';', \"a;b\"; SELECT ''';'", ["SELECT ';', E'\\';', \"a;b\"", "SELECT ''';'"]),
        ("DO $$ BEGIN; END $$; SELECT $a$ $$;$$ $a$", ["DO $$ BEGIN; END $$", "SELECT $a$ $$;$$ $a$"]),
        (
            "SELECT 1 /* a; /* b; */ c; */ + 1; SELECT 2 -- x;\n",
            ["SELECT 1 /* a; /* b; */ c; */ + 1", "SELECT 2 -- x;"],
        ),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3", None),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; BEGIN",
            None,
        ),
        ("SELECT a$b$c; SELECT 1", ["SELECT a$b$c", "SELECT 1"]),
        ("-- first\rSELECT 1;\rSELECT 2", ["-- first\rSELECT 1", "SELECT 2"]),
        ("SELECT E'a\\''\n'b\\';c'; SELECT 1", ["SELECT E'a\\''\n'b\\';c'", "SELECT 1"]),
        ("SELECT e'a' -- x\r-- y\n 'b\\';c'; SELECT 1", ["SELECT e'a' -- x\r-- y\n 'b\\';c'", "SELECT 1"]),
        ("SELECT $é😀$;$é😀$; SELECT 1", ["SELECT $é😀$;$é😀$", "SELECT 1"]),
        ("SELECT U&'\\'; SELECT 'a\\'; SELECT 1", ["SELECT U&'\\'", "SELECT 'a\\'", "SELECT 1"]),
    ],
)
def test_a_script_is_split_as_postgresql_reads_it(script: str, statements: list[str] | None) -> None:
    found = [statement.query.strip() for statement in split(script)]
    if statements is None:
        assert len(found) in {2, 3}
        assert found[0].count(";") >= 1
    else:
        assert found == statements


def test_parameters_are_found_outside_quotes_and_every_other_percent_is_itself() -> None:
    (statement,) = split("SELECT %(day)s, '5%', 7 % 2 -- %(not)s\n")

    assert statement.names == {"day"}
    assert statement.query.strip() == "SELECT %(day)s, '5%%', 7 %% 2 -- %%(not)s"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("SELECT 1;\nSELECT '%(day)s'", "line 2: %(day)s stands inside quotes"),
        ("SELECT $$ %(day)s $$", "line 1: %(day)s stands inside quotes"),
        ('SELECT "%(day)s"', "stands inside quotes"),
        ("SELECT\n'a", "line 2: the quote ' is never closed"),
        ("SELECT $x$ a", "the quote $x$ is never closed"),
        ("SELECT 1 /* a /* b */", "the comment /* is never closed"),
        ("SELECT 1;\rSELECT E'a'\r\n'b", "line 2: the quote ' on the next line is never closed"),
        ("SELECT 1;\nSELECT\0 2", "line 2: PostgreSQL takes no NUL character"),
    ],
)
def test_a_script_that_cannot_be_read_names_the_line(script: str, said: str) -> None:
    with pytest.raises(StatementError) as refusal:
        split(script)
    assert said in str(refusal.value)


# Specs


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        (
            {"connection": "nope", "sql": "SELECT 1"},
            "connection",
            "no connection “nope” here; there are: broken, warehouse.",
        ),
        ({"connection": "a b", "sql": "SELECT 1"}, "connection", "no connection “a b”"),
        ({"connection": "broken", "sql": "SELECT 1"}, "connection", "TAILRACE_SQL_BROKEN is not a URL like"),
        ({"connection": "warehouse", "sql": "-- nothing"}, "sql", "It holds no statement."),
        ({"connection": "warehouse", "sql": "SELECT 'a"}, "sql", "never closed"),
        (
            {"connection": "warehouse", "sql": "SELECT 1;\nCOMMIT"},
            "sql",
            "line 2: the script is one transaction already",
        ),
        (
            {"connection": "warehouse", "sql": "PREPARE TRANSACTION 'x'"},
            "sql",
            "line 1: the script is one transaction already",
        ),
        (
            {"connection": "warehouse", "sql": "SELECT 1", "autocommit": "yes"},
            "autocommit",
            "It must be true or false.",
        ),
    ],
)
def test_a_mistake_in_a_spec_is_named_by_its_field(
    spec: dict[str, Any], field: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", "postgresql://u:p@h/db")
    monkeypatch.setenv("TAILRACE_SQL_BROKEN", "mysql://u:hunter2@h/db")
    with pytest.raises(SpecErrors) as refusal:
        kind("sql").clean(spec)
    assert said in refusal.value.errors[field]
    assert "hunter2" not in str(refusal.value)


def test_savepoints_and_one_s_own_transactions_are_accepted_where_they_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", "postgresql://u:p@h/db")
    savepoint = {"connection": "warehouse", "sql": "SAVEPOINT a; ROLLBACK TO a; ROLLBACK TO SAVEPOINT a"}
    own = {"connection": "warehouse", "sql": "BEGIN; COMMIT", "autocommit": True}

    assert kind("sql").clean(savepoint) == savepoint
    assert kind("sql").clean(own) == own
    assert kind("sql").clean(savepoint | {"autocommit": False}) == savepoint


def test_a_connection_that_vanished_fails_the_job_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobFailed, match="There is no connection “gone” here"):
        kind("sql").run({"connection": "gone", "sql": "SELECT 1"}, make_context())


# Running


def test_a_script_runs_in_one_transaction_and_the_log_shows_each_statement(warehouse: Any) -> None:
    context = make_context(parameters={"limit": 2, "names": {"a": 1}, "word": "it's; 100%"})
    result = run(
        "CREATE TABLE flights (day date, n int, word text, names jsonb);\n"
        "INSERT INTO flights SELECT %(data_date)s, n, %(word)s, %(names)s FROM generate_series(1, 3) n;\n"
        "DO $$ BEGIN RAISE NOTICE 'half way'; END $$;\n"
        "SELECT day, n, word, NULL AS nothing FROM flights WHERE n <= %(limit)s AND word LIKE '%100%';",
        context,
    )
    log = context.log.whole

    assert result == {"rows": 2, "statements": 4}
    assert "[1/4, line 1] CREATE TABLE (" in log
    assert "[2/4, line 2] INSERT 0 3 (" in log
    assert "NOTICE: half way\n" in log
    assert (
        "day         n  word        nothing\n"
        "----------  -  ----------  -------\n"
        "2026-03-01  1  it's; 100%  NULL\n"
        "2026-03-01  2  it's; 100%  NULL\n"
        "[4/4, line 4] SELECT 2 ("
    ) in log
    assert warehouse.execute("SELECT count(*) FROM flights WHERE names->>'a' = '1'").fetchone() == (3,)


def test_a_comment_that_ends_at_a_carriage_return_hides_no_statement(warehouse: Any) -> None:
    result = run("CREATE TABLE t (a int); -- first\rINSERT INTO t VALUES (1);\r")

    assert result == {"rows": 1, "statements": 2}
    assert warehouse.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_a_backslash_in_a_plain_quote_is_refused_where_it_would_escape(warehouse: Any) -> None:
    off = "SET LOCAL standard_conforming_strings = off;\n"
    assert run(off + "SELECT 'plain', E'a\\'b'") == {"rows": 1, "statements": 2}

    with pytest.raises(JobFailed, match=r"line 2: a plain quote holds a backslash, and standard_conforming_"):
        run(off + "SELECT 'a\\'; SELECT 1")


def test_nothing_of_a_script_stays_when_a_statement_fails(warehouse: Any) -> None:
    context = make_context()
    with pytest.raises(JobFailed, match=r'^UndefinedTable: relation "nope" does not exist'):
        run("CREATE TABLE kept (n int); INSERT INTO nope VALUES (1)", context)

    assert warehouse.execute("SELECT to_regclass('kept')").fetchone() == (None,)
    assert "[2/2, line 1] failed after" in context.log.whole


def test_a_failure_at_commit_fails_the_job(warehouse: Any) -> None:
    warehouse.execute("CREATE TABLE a (n int PRIMARY KEY)")
    warehouse.execute("CREATE TABLE b (n int REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(JobFailed, match=r"ForeignKeyViolation.*not present"):
        run("INSERT INTO b VALUES (1)")


def test_with_autocommit_each_statement_stands_alone(warehouse: Any) -> None:
    with pytest.raises(JobFailed, match="DivisionByZero"):
        run("CREATE TABLE kept (n int); VACUUM kept; SELECT 1/0", autocommit=True)

    assert warehouse.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone() == (True,)


def test_the_content_of_a_parameter_is_never_executed(warehouse: Any) -> None:
    context = make_context(parameters={"word": "'; DROP TABLE flights; --"})
    run("CREATE TABLE flights (word text); INSERT INTO flights VALUES (%(word)s)", context)

    assert warehouse.execute("SELECT word FROM flights").fetchone() == ("'; DROP TABLE flights; --",)


def test_an_unknown_parameter_fails_the_job_before_anything_runs(warehouse: Any) -> None:
    with pytest.raises(
        JobFailed, match=r"line 2: there is no parameter 'dya'; there are batch_id, cycle_time, data_date"
    ):
        run("CREATE TABLE kept (n int);\nSELECT %(dya)s")

    assert warehouse.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_a_select_of_any_size_shows_fifty_rows_and_counts_all(warehouse: Any) -> None:
    context = make_context()

    assert (
        run("SELECT n, repeat('x', 100) AS long FROM generate_series(1, 200000) n", context)["rows"] == 200_000
    )
    log = context.log.whole
    assert "(199,950 more rows not shown)\n" in log
    assert "…\n" in log
    assert len(log) < 10_000


def test_copy_to_the_client_is_refused_in_words(warehouse: Any) -> None:
    with pytest.raises(JobFailed, match="COPY from STDIN or to STDOUT has no place in an sql job"):
        run("COPY (SELECT 1) TO STDOUT")


def test_a_stop_cancels_the_statement_on_the_server(warehouse: Any) -> None:
    context = make_context()
    threading.Thread(
        target=lambda: (until(lambda: running_from_outside(warehouse)), context.stop.set())
    ).start()
    began = time.monotonic()
    with pytest.raises(JobStopped):
        run("CREATE TABLE kept (n int); SELECT pg_sleep(60)", context)

    assert time.monotonic() - began < 10
    assert running(warehouse) == 0
    assert warehouse.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def running_from_outside(outside: Any) -> bool:
    return running(outside) > 0


def test_a_stop_between_statements_is_heard_too(warehouse: Any) -> None:
    context = make_context()
    context.stop.set()
    with pytest.raises(JobStopped):
        run("SELECT 1", context)


def test_a_time_out_cancels_the_statement_on_the_server_before_it_is_raised(warehouse: Any) -> None:
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        run("CREATE TABLE kept (n int); SELECT pg_sleep(60)")

    assert running(warehouse) == 0
    assert warehouse.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_a_server_that_is_not_there_fails_the_job_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_SQL_AWAY", "postgresql://u:hunter2@127.0.0.1:1/db")
    context = make_context()
    with pytest.raises(JobFailed, match="the connection 'away' does not answer") as failure:
        kind("sql").run({"connection": "away", "sql": "SELECT 1"}, context)
    assert "hunter2" not in failure.value.message + context.log.whole


def test_the_password_never_appears_in_the_log_or_the_error(
    server: str, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "hunter 2%!"
    joined = "&" if "?" in server else "?"
    monkeypatch.setenv("TAILRACE_SQL_SECRETIVE", f"{server}{joined}password={quote(password)}")
    context = make_context(parameters={"p": password})
    with pytest.raises(JobFailed) as failure:
        kind("sql").run({"connection": "secretive", "sql": "SELECT %(p)s AS p; SELECT %(p)s::int"}, context)

    assert 'invalid input syntax for type integer: "***"' in failure.value.message
    assert password not in context.log.whole
    assert "***" in context.log.whole
