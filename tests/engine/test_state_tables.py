"""Every move of a batch and an instance, legal and illegal, by raw SQL: the database knows the tables too."""

from __future__ import annotations

import pytest
from django.db import ProgrammingError, connection, transaction
from django.utils import timezone

from scheduling.models import Batch, Instance
from scheduling.states import BATCH, INSTANCE, BatchState, InstanceState, Machine
from tests.engine.states import InEveryState, pairs
from tests.engine.support import row

pytestmark = [pytest.mark.long, pytest.mark.django_db]

# As the design says it, written out once more so that a slip in the table shows.
LEGAL_BATCH = {
    ("waiting", "running"),
    ("waiting", "terminating"),
    ("waiting", "condition_not_met"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "terminating"),
    ("running", "waiting"),
    ("terminating", "success"),
    ("terminating", "failed"),
    ("success", "running"),
    ("failed", "running"),
    ("success", "waiting"),
    ("failed", "waiting"),
    ("success", "failed"),
    ("failed", "success"),
}
LEGAL_INSTANCE = {
    ("waiting", "running"),
    ("waiting", "terminated"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "timed_out"),
    ("running", "terminating"),
    ("terminating", "terminated"),
    ("terminating", "success"),
    ("terminating", "failed"),
    ("terminating", "timed_out"),
    ("success", "waiting"),
    ("failed", "waiting"),
    ("terminated", "waiting"),
    ("timed_out", "waiting"),
}


# --- the tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "legal"), [(BATCH, LEGAL_BATCH), (INSTANCE, LEGAL_INSTANCE)])
def test_the_table_says_what_the_design_says(machine: Machine, legal: set[tuple[str, str]]):
    assert set(machine.moves) == legal
    assert machine.initial == "waiting"


def test_the_final_states_are_those_of_the_design():
    assert BATCH.final == {"success", "failed", "condition_not_met"}
    assert INSTANCE.final == {"success", "failed", "terminated", "timed_out"}
    assert len(BatchState) == 6
    assert len(InstanceState) == 7


# --- raw SQL ---------------------------------------------------------------------------------------


def move(thing: Batch | Instance, machine: Machine, new: str) -> None:
    """What someone might type into psql."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {thing._meta.db_table} SET state = %s, ended_at = %s WHERE id = %s",
            [new, (thing.ended_at or timezone.now()) if new in machine.final else None, thing.pk],
        )


def check_raw_move(thing: Batch | Instance, machine: Machine, new: str, legal: set[tuple[str, str]]) -> None:
    old, before = thing.state, row(thing)
    follows = {"listed_state"} & before.keys()
    if (old, new) in legal:
        move(thing, machine, new)
        changed = {name for name, value in row(thing).items() if value != before[name]}
        assert changed == {"state"} | follows | (
            {"ended_at"} if (old in machine.final) != (new in machine.final) else set()
        )
        assert row(thing)["state"] == new
    else:
        with pytest.raises(ProgrammingError, match=f'field "state" from "{old}" to "{new}" on table'):
            move(thing, machine, new)
        assert row(thing) == before


@pytest.mark.parametrize(("old", "new"), pairs(BatchState))
def test_raw_sql_moves_a_batch_only_along_the_table(in_every_state: InEveryState, old: str, new: str):
    check_raw_move(in_every_state.batch(old), BATCH, new, LEGAL_BATCH)


@pytest.mark.parametrize(("old", "new"), pairs(InstanceState))
def test_raw_sql_moves_an_instance_only_along_the_table(in_every_state: InEveryState, old: str, new: str):
    check_raw_move(in_every_state.instance(old), INSTANCE, new, LEGAL_INSTANCE)
