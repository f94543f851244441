"""Every move of a rerun and of its items, legal and illegal, by raw SQL; every constraint by its name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, IntegrityError, ProgrammingError, connection, transaction

from reruns.models import Rerun, RerunEdge
from reruns.states import ITEM, RERUN, ItemState, RerunState
from scheduling.states import Machine
from tests.engine.rerun_world import World
from tests.engine.states import duplicate
from tests.engine.test_state_machines_of_workflows import check_raw_moves

pytestmark = [pytest.mark.long, pytest.mark.django_db, pytest.mark.usefixtures("noon")]

LATER = datetime(2030, 1, 1, tzinfo=UTC)

# As the design says it, written out once more so that a slip in the table shows.
LEGAL_RERUN = {
    ("draft", "running"),
    ("running", "paused"),
    ("paused", "running"),
    ("running", "success"),
    ("running", "failed"),
    ("failed", "running"),
    ("running", "terminating"),
    ("paused", "terminating"),
    ("failed", "terminating"),
    ("terminating", "terminated"),
}
LEGAL_ITEM = {
    ("planned", "waiting"),
    ("planned", "frozen"),
    ("waiting", "running"),
    ("waiting", "failed"),
    ("waiting", "cancelled"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "terminated"),
    ("failed", "waiting"),
    ("terminated", "waiting"),
    ("failed", "running"),
    ("terminated", "running"),
    ("failed", "success"),
    ("terminated", "success"),
    ("frozen", "unfrozen"),
}


@pytest.fixture
def draft(noon: Any) -> Rerun:
    return World("a > b", noon).draft("a", "b")


@pytest.fixture
def rerun(noon: Any) -> Rerun:
    return World("a > b", noon).rerun("a", "b")


@pytest.mark.parametrize(
    ("machine", "legal", "initial"), [(RERUN, LEGAL_RERUN, "draft"), (ITEM, LEGAL_ITEM, "planned")]
)
def test_the_table_says_what_the_design_says(
    machine: Machine, legal: set[tuple[str, str]], initial: str
) -> None:
    assert set(machine.moves) == legal
    assert machine.initial == initial


def test_raw_sql_moves_a_rerun_only_along_the_table(rerun: Rerun) -> None:
    submitted = SimpleNamespace(values=[each for each in RerunState.values if each != "draft"])
    check_raw_moves(rerun, RERUN, LEGAL_RERUN, submitted)


def test_raw_sql_makes_no_draft_run_by_itself_nor_a_rerun_a_draft(draft: Rerun) -> None:
    for state in set(RerunState.values) - {"draft"}:
        with pytest.raises(DatabaseError, match=r'"draft" to|rerun_submitted_unless_draft'):
            _change(draft, state=state, ended_at=LATER if state in RERUN.final else None)
    _change(draft, state="running", submitted_at=LATER)
    with pytest.raises(ProgrammingError, match='field "state" from "running" to "draft"'):
        _change(draft, state="draft", submitted_at=None)


def test_raw_sql_moves_an_item_only_along_the_table(rerun: Rerun) -> None:
    item = rerun.items.order_by("pk")[1]
    type(item).objects.filter(pk=item.pk).update(owned=False)
    item.refresh_from_db()
    check_raw_moves(item, ITEM, LEGAL_ITEM, ItemState)


def _change(thing: Any, **values: Any) -> None:
    columns = ", ".join(f"{name} = %s" for name in values)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(
            f"UPDATE {thing._meta.db_table} SET {columns} WHERE id = %s", [*values.values(), thing.pk]
        )


# --- constraints -------------------------------------------------------------------------------------


def _rerun(of: Rerun, **changes: Any) -> None:
    duplicate("reruns_rerun", of.pk, **changes)


def _item(of: Rerun, **changes: Any) -> None:
    duplicate("reruns_rerunitem", of.items.order_by("pk")[1].pk, **({"cycle_id": 0} | changes))


def _edge(of: Rerun) -> None:
    duplicate("reruns_rerunedge", RerunEdge.objects.get(item__rerun=of).pk)


VIOLATIONS: dict[str, list[Callable[[Rerun], None]]] = {
    "rerun_on_failure_legal": [lambda of: _rerun(of, on_failure="shrug")],
    "rerun_ended_when_final": [
        lambda of: _rerun(of, state="asleep"),
        lambda of: _rerun(of, state="success"),
        lambda of: _rerun(of, ended_at=LATER),
        lambda of: _rerun(of, state="failed", ended_at=LATER),
    ],
    "rerun_submitted_unless_draft": [
        lambda of: _rerun(of, state="draft"),
        lambda of: _rerun(of, submitted_at=None),
    ],
    "rerun_item_action_legal": [lambda of: _item(of, action="burn")],
    "rerun_item_once": [lambda of: _item(of, cycle_id=of.items.order_by("pk")[0].cycle_id, owned=False)],
    "rerun_owns_cycle_alone": [
        lambda of: _item(of, cycle_id=of.items.order_by("pk")[1].cycle_id, rerun_id=_another(of))
    ],
    "rerun_item_ended_when_final": [
        lambda of: _item(of, state="asleep"),
        lambda of: _item(of, state="success"),
        lambda of: _item(of, state="waiting", ended_at=LATER),
    ],
    "rerun_item_owned_once_submitted": [lambda of: _item(of, state="planned")],
    "rerun_edge_once": [_edge],
}


def _another(of: Rerun) -> int:
    duplicate("reruns_rerun", of.pk)
    newest: int = Rerun.objects.order_by("-pk")[0].pk
    return newest


def test_every_constraint_of_reruns_is_tried_here() -> None:
    models = apps.get_app_config("reruns").get_models()
    assert {constraint.name for model in models for constraint in model._meta.constraints} == set(VIOLATIONS)


@pytest.mark.parametrize(
    ("name", "violate"), [(name, violate) for name, each in VIOLATIONS.items() for violate in each]
)
def test_the_database_refuses_by_name(rerun: Rerun, name: str, violate: Callable[[Rerun], None]) -> None:
    with pytest.raises(IntegrityError) as refused:
        violate(rerun)
    assert refused.value.__cause__.diag.constraint_name == name  # type: ignore[union-attr]


def test_every_trigger_of_reruns_is_tried_somewhere() -> None:
    models = apps.get_app_config("reruns").get_models()
    names = {trigger.name for model in models for trigger in getattr(model._meta, "triggers", [])}
    assert names == {"rerun_moves", "rerun_record_lasts", "rerun_item_moves", "rerun_item_immutable"}
