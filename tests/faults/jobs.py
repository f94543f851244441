"""Jobs whose doing can be counted from outside: each leaves a row, written by the job itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid

import psycopg
from django.db import connection, transaction

from scheduling.jobs import JobContext, JobFailed, job

TABLE = (
    "CREATE TABLE IF NOT EXISTS effects"
    " (execution_id bigint, instance_id bigint, attempt int, pid int, run uuid UNIQUE)"
)


def _leave_row(context: JobContext, run: uuid.UUID) -> None:
    # Done twice it is one row: the database may commit it and go away before it says so.
    # It stands for another system: a test may make this server read-only.
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        # Not as an option at the start: a pooler refuses those.
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(
            "INSERT INTO effects VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [context.execution_id, context.instance_id, context.attempt, os.getpid(), run],
        )


@job(name="effect")
def effect(context: JobContext) -> None:
    """Work for `seconds`, then leave a row."""
    run = uuid.uuid4()
    context.sleep(float(context.parameters.get("seconds", 0)))
    for _attempt in range(100):
        try:
            return _leave_row(context, run)
        except psycopg.OperationalError:
            # The database is being restarted under us: the job itself is patient.
            context.sleep(0.1)
    return _leave_row(context, run)


@job(name="headless")
def headless(context: JobContext) -> None:
    """Say which `run` this is, and work for `seconds` whoever asks for a stop."""
    context.log.write(f"{context.parameters['run']}\n")
    until = time.monotonic() + float(context.parameters["seconds"])
    while time.monotonic() < until:
        time.sleep(0.1)
        context.log.write(f"{context.parameters['run']}\n")


@job(name="noop")
def noop(context: JobContext) -> None:
    """Nothing at all."""


@job(name="undecodable")
def undecodable(context: JobContext) -> None:
    raise ValueError("a file called \udc80")


@job(name="cancelled")
def cancelled(context: JobContext) -> None:
    raise asyncio.CancelledError


@job(name="exits_high")
def exits_high(context: JobContext) -> None:
    sys.exit(100_000)


@job(name="exits_truly")
def exits_truly(context: JobContext) -> None:
    sys.exit(True)


@job(name="fails_oddly")
def fails_oddly(context: JobContext) -> None:
    raise JobFailed(None, exit_code="seven")  # type: ignore[arg-type]


@job(name="forks")
def forks(context: JobContext) -> None:
    """Let the child return as well."""
    os.fork()


@job(name="begins")
def begins(context: JobContext) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")


@job(name="manual_commit")
def manual_commit(context: JobContext) -> None:
    transaction.set_autocommit(False)


@job(name="half_atomic")
def half_atomic(context: JobContext) -> None:
    transaction.atomic().__enter__()


@job(name="read_only")
def read_only(context: JobContext) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")


@job(name="deaf")
def deaf(context: JobContext) -> None:
    """Ignore the alarm of the time-out."""
    until = time.monotonic() + 4
    while time.monotonic() < until:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001, S112 - this is what it is about
            continue


@job(name="leaves_a_child")
def leaves_a_child(context: JobContext) -> None:
    """Start a process in a session of its own, and go on."""
    with subprocess.Popen(["sleep", context.parameters["asleep"]], start_new_session=True):
        context.sleep(600)
