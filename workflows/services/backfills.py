"""Backfill: the cycles between two times, run under control.

Every cycle of the range gets an instance at once, so that a list shows what will run; each waits until the
backfill gives it its turn (`due`), in order, no more than `parallelism` at a time. One that failed never drops
the others; whoever wants to look first lets the backfill pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from config import clock
from scheduling import journal, validation
from scheduling.reasons import said
from workflows import periods, reasons, transitions, words
from workflows.errors import CycleRefused
from workflows.models import (
    Backfill,
    Cycle,
    CycleDependency,
    CycleInstance,
    Mode,
    Order,
    RunType,
    Workflow,
    WorkflowRevision,
)
from workflows.services import generation, operations
from workflows.states import BACKFILL, BackfillState, CycleState

MOST_CYCLES = 5000


@dataclass(frozen=True)
class Candidate:
    """One cycle of the range: what would happen to it, and why not if it would not run.

    `effective` is the instance whose result it replaces, `waits_for` how many upstream cycles did not succeed.
    """

    cycle_time: datetime
    data_date: Any
    effective: CycleInstance | None = None
    waits_for: int = 0
    refused: str = ""


def plan_backfill(
    workflow: Workflow,
    *,
    since: datetime,
    until: datetime,
    order: str = Order.OLDEST_FIRST,
    waits_for_upstream: bool = True,
) -> list[Candidate]:
    """What a backfill of the cycles from `since` to `until` would run, in its order; nothing is made.

    Raises CycleRefused when the range holds no cycle, too many, or one that is still to come, and when cycles
    that wait each for the one before are to have their turn the newest first.
    """
    revision = workflow.revision
    if revision is None or not revision.cron:
        raise CycleRefused(
            _("Workflow %(name)s has no schedule, so it has no cycles.") % {"name": workflow.name}
        )
    if waits_for_upstream and order == Order.NEWEST_FIRST:
        _refuse_backwards(revision)
    slots = _slots(revision, since, until)
    cycles = {
        cycle.cycle_time: cycle
        for cycle in Cycle.objects.filter(workflow=workflow, cycle_time__in=slots).select_related("effective")
    }
    unfinished = {
        instance.cycle_id: instance
        for instance in CycleInstance.objects.unfinished()
        .filter(cycle__in=[cycle.pk for cycle in cycles.values()])
        .exclude(run_type=RunType.TEST)
    }
    waits = _waits(cycles.values())
    found = []
    for slot in slots:
        cycle = cycles.get(slot)
        other = unfinished.get(cycle.pk) if cycle else None
        found.append(
            Candidate(
                cycle_time=slot,
                data_date=periods.data_date(revision, slot),
                effective=cycle.effective if cycle else None,
                waits_for=waits.get(cycle.pk, 0) if cycle else 0,
                refused=_refused(cycle, other),
            )
        )
    return found if order == Order.OLDEST_FIRST else found[::-1]


def _refused(cycle: Cycle | None, unfinished: CycleInstance | None) -> str:
    if unfinished is not None:
        return _("Cycle instance %(id)s of it is unfinished.") % {"id": unfinished.pk}
    if cycle is not None and cycle.holder:
        return _("It is held by %(holder)s, which is about to rerun it.") % {
            "holder": words.of_holder(cycle.holder)
        }
    return ""


def _refuse_backwards(revision: WorkflowRevision) -> None:
    if revision.dependencies.filter(upstream=revision.workflow_id).exists():
        raise CycleRefused(
            _(
                "Each cycle of %(name)s waits for the one before it, so the newest cannot run first. "
                "Backfill it the oldest first, or without waiting for upstream cycles."
            )
            % {"name": revision.workflow.name}
        )


def _slots(revision: WorkflowRevision, since: datetime, until: datetime) -> list[datetime]:
    now = clock.now()
    if until < since:
        raise CycleRefused(_("The range ends before it begins."))
    if until > now:
        raise CycleRefused(_("The range ends in the future; a backfill runs cycles whose time has passed."))
    slots: list[datetime] = []
    if periods.is_slot(revision, since):
        slots.append(since)
    for slot in periods.slots(revision, since, until):
        slots.append(slot)
        if len(slots) > MOST_CYCLES:
            raise CycleRefused(
                _("The range has more than %(most)d cycles; backfill it in parts.") % {"most": MOST_CYCLES}
            )
    if not slots:
        raise CycleRefused(_("The workflow's schedule has no cycle in this range."))
    return slots


def _waits(cycles: Any) -> dict[int, int]:
    unmet = CycleDependency.objects.filter(cycle__in=[cycle.pk for cycle in cycles], upstream__succeeded=False)
    counts: dict[int, int] = {}
    for cycle_id in unmet.values_list("cycle_id", flat=True):
        counts[cycle_id] = counts.get(cycle_id, 0) + 1
    return counts


@transaction.atomic
def backfill(
    workflow: Workflow,
    *,
    since: datetime,
    until: datetime,
    order: str = Order.OLDEST_FIRST,
    parallelism: int = 1,
    waits_for_upstream: bool = True,
    pause_on_failure: bool = False,
    parameters: dict[str, Any] | None = None,
    by: journal.By = None,
    reason: str = "",
) -> Backfill:
    """Run every cycle of a workflow from `since` to `until` (again), but for those that are unfinished or held.

    With `waits_for_upstream` a cycle waits, when it is its turn, until its upstream cycles have succeeded.
    Raises CycleRefused as `plan_backfill` does, and when nothing of the range can run.
    """
    overrides = validation.clean_parameters(parameters or {})
    workflow = Workflow.objects.locked([workflow.pk])[workflow.pk]
    planned = plan_backfill(
        workflow, since=since, until=until, order=order, waits_for_upstream=waits_for_upstream
    )
    slots = sorted(each.cycle_time for each in planned if not each.refused)
    if not slots:
        raise CycleRefused(
            _("Every cycle of this range is unfinished already, or held by a rerun; there is nothing to run.")
        )
    who = journal.actor(by)
    made = Backfill.objects.create(
        workflow=workflow,
        team_id=workflow.team_id,
        since=slots[0],
        until=slots[-1],
        order=order,
        parallelism=max(parallelism, 1),
        pause_on_failure=pause_on_failure,
        requested_by_id=who.user_id,
        actor=who.name,
        created_at=clock.now(),
    )
    cycles = generation.make_cycles(workflow, slots)
    generation.set_dependencies(workflow, _without_dependencies(cycles))
    generation.new_instances(
        workflow,
        cycles,
        run_type=RunType.BACKFILL,
        by=by,
        # These are cycles of the schedule, so the result is the schedule's.
        online=workflow.mode == Mode.ONLINE,
        backfill=made,
        parameters=overrides,
        waits_for_upstream=waits_for_upstream,
    )
    journal.record("backfilled", made, by, reason=reason, details={"cycles": len(cycles)})
    _take_turns(made, workflow)
    return made


def _without_dependencies(cycles: Sequence[Cycle]) -> list[Cycle]:
    """Cycles from before their workflow was generated, which nobody has told yet what they wait for."""
    have = set(
        CycleDependency.objects.filter(cycle__in=[cycle.pk for cycle in cycles]).values_list(
            "cycle_id", flat=True
        )
    )
    return [cycle for cycle in cycles if cycle.pk not in have]


# --- turns -------------------------------------------------------------------------------------------


def cycle_ended(instance_id: int) -> None:
    """Go on with the backfill that an ended instance belongs to; called in the transaction of its end."""
    instance = CycleInstance.objects.only("backfill", "state", "workflow").get(pk=instance_id)
    if instance.backfill_id is None:
        return
    workflow = Workflow.objects.locked([instance.workflow_id])[instance.workflow_id]
    found = _lock(instance.backfill_id)
    if found.is_finished:
        return
    failed = instance.state in {CycleState.FAILED, CycleState.TERMINATED}
    if failed and found.pause_on_failure and found.state == BackfillState.RUNNING:
        _move(found, BackfillState.PAUSED)
        journal.record(
            "paused", found, journal.ENGINE, reason=said(reasons.PAUSED_ON_FAILURE, cycle=instance_id)
        )
    _take_turns(found, workflow)


def _take_turns(found: Backfill, workflow: Workflow) -> None:
    """Let the next cycles of a locked backfill have their turn, or end it when none is left."""
    instances = CycleInstance.objects.filter(backfill=found)
    unfinished = instances.unfinished()
    if not unfinished.exists():
        _conclude(found)
        return
    if found.state != BackfillState.RUNNING:
        return
    room = found.parallelism - unfinished.filter(due=True).count()
    if room <= 0:
        return
    direction = "" if found.order == Order.OLDEST_FIRST else "-"
    waiting = unfinished.filter(due=False, state=CycleState.NOT_READY).order_by(f"{direction}cycle_time")
    following = list(waiting.values_list("pk", flat=True)[:room])
    CycleInstance.objects.filter(pk__in=following).update(due=True, due_at=clock.now())
    transitions.make_ready(CycleInstance.objects.filter(pk__in=following))
    transitions.begin_ready(workflow)


def carry_on(found: Backfill) -> int:
    """Finish what a killed process left half done of an unfinished backfill; whether there was anything."""
    if found.state == BackfillState.TERMINATING:
        finish_terminating(found, by=journal.ENGINE, reason="")
    before = found.state, CycleInstance.objects.filter(backfill=found, due=True).count()
    with transaction.atomic():
        workflow = Workflow.objects.locked([found.workflow_id])[found.workflow_id]
        found = _lock(found.pk)
        if not found.is_finished:
            _take_turns(found, workflow)
    return int(before != (found.state, CycleInstance.objects.filter(backfill=found, due=True).count()))


def _conclude(found: Backfill) -> None:
    states = CycleInstance.objects.filter(backfill=found).count_by_state()
    if found.state == BackfillState.TERMINATING:
        state = BackfillState.TERMINATED
    elif set(states) <= {CycleState.SUCCESS}:
        state = BackfillState.SUCCESS
    else:
        state = BackfillState.FAILED
    found.ended_at = clock.now()
    _move(found, state)
    journal.record("ended", found, journal.ENGINE, details={"state": state.value, **states})


def _lock(backfill_id: int) -> Backfill:
    found = Backfill.objects.select_related("workflow")
    return found.select_for_update(no_key=True, of=("self",)).get(pk=backfill_id)


def _move(found: Backfill, state: BackfillState) -> None:
    found.state = state
    found.save(update_fields=["state", "ended_at"])


# --- what an operator does to one --------------------------------------------------------------------


@transaction.atomic
def pause_backfill(found: Backfill, *, by: journal.By = None, reason: str = "") -> Backfill:
    """Give no further cycle its turn; what runs goes on. Raises CycleRefused when it does not run."""
    return _asked(found, BackfillState.PAUSED, "paused", by=by, reason=reason)


@transaction.atomic
def resume_backfill(found: Backfill, *, by: journal.By = None, reason: str = "") -> Backfill:
    """Let a paused backfill go on."""
    workflow = Workflow.objects.locked([found.workflow_id])[found.workflow_id]
    found = _asked(found, BackfillState.RUNNING, "resumed", by=by, reason=reason)
    _take_turns(found, workflow)
    return found


def terminate_backfill(found: Backfill, *, by: journal.By = None, reason: str = "") -> Backfill:
    """Cancel what has not had its turn and stop what runs; it ends when that has confirmed.

    Raises CycleRefused when it has ended or is being terminated already.
    """
    with transaction.atomic():
        Workflow.objects.locked([found.workflow_id])
        found = _asked(found, BackfillState.TERMINATING, "terminated", by=by, reason=reason)
    finish_terminating(found, by=by, reason=reason)
    found.refresh_from_db()
    return found


def finish_terminating(found: Backfill, *, by: journal.By, reason: str) -> None:
    """Cancel and stop what is left of a backfill that is being terminated; may be done again after a crash."""
    why = said(reasons.BACKFILL_ENDED, batch=found.pk)
    unfinished = CycleInstance.objects.filter(backfill=found).unfinished()
    for instance in list(unfinished.order_by("-cycle_time")):
        if transitions.cancel(instance.pk, by=by, reason=why):
            continue
        try:
            operations.stop(instance, by=by, reason=reason or why)
        except CycleRefused:
            # It ended, or is being stopped, already.
            continue


def _asked(found: Backfill, state: BackfillState, action: str, *, by: journal.By, reason: str) -> Backfill:
    found = _lock(found.pk)
    if not BACKFILL.allows(found.state, state):
        done = {
            "paused": pgettext("it cannot be", "paused"),
            "resumed": pgettext("it cannot be", "resumed"),
            "terminated": pgettext("it cannot be", "terminated"),
        }[action]
        raise CycleRefused(
            _("Backfill %(id)s has state %(state)s, from which it cannot be %(action)s.")
            % {"id": found.pk, "state": found.get_state_display(), "action": done}
        )
    _move(found, state)
    journal.record(action, found, by, reason=reason)
    return found
