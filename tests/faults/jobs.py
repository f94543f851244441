"""Jobs whose doing can be counted from outside: each leaves a row, written by the job itself."""

from __future__ import annotations

import os

import psycopg

from scheduling.jobs import JobContext, job

TABLE = "CREATE TABLE IF NOT EXISTS effects (execution_id bigint, instance_id bigint, attempt int, pid int)"


def _leave_row(context: JobContext) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "INSERT INTO effects VALUES (%s, %s, %s, %s)",
            [context.execution_id, context.instance_id, context.attempt, os.getpid()],
        )


@job(name="effect")
def effect(context: JobContext) -> None:
    """Work for `seconds`, then leave a row."""
    context.sleep(float(context.parameters.get("seconds", 0)))
    for _attempt in range(100):
        try:
            return _leave_row(context)
        except psycopg.OperationalError:
            # The database is being restarted under us: the job itself is patient.
            context.sleep(0.1)
    return _leave_row(context)


@job(name="noop")
def noop(context: JobContext) -> None:
    """Nothing at all."""
