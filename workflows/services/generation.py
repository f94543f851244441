"""Cycles ahead: which cycle instances exist, with what they wait for.

Generating is idempotent: whatever exists already stays, so any number of schedulers may do it, and an edit only
has to set the clock back. A cycle and its dependencies outlive its instances.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Q

from config import clock
from scheduling import bulk, journal
from scheduling.errors import is_transient
from scheduling.models.tasks import Misfire
from scheduling.reasons import said
from scheduling.transitions import execute
from workflows import notifications, periods, reasons, transitions
from workflows.models import (
    Cycle,
    CycleDependency,
    CycleInstance,
    Mode,
    RunType,
    Workflow,
    WorkflowDependency,
    WorkflowRevision,
)
from workflows.states import CycleState

logger = logging.getLogger(__name__)

# Cycles that one transaction makes; a workflow that has more to catch up has the next round.
MOST_AT_ONCE = 2000
_MAKING_CYCLES = int.from_bytes(b"tr:cycle")
_MOMENT = timedelta(microseconds=1)


def horizon(revision: WorkflowRevision, now: datetime) -> datetime:
    """Until when cycles are generated: the end of tomorrow in the workflow's zone."""
    local = now.astimezone(ZoneInfo(revision.timezone))
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return (day + timedelta(days=2)).astimezone(ZoneInfo(revision.timezone)) - _MOMENT


def generate_due(now: datetime | None = None, limit: int = 50) -> int:
    """Generate for workflows that fall short of their horizon; how many were dealt with."""
    now = now or clock.now()
    # Zones differ by a day and more; who is a whole day behind certainly falls short.
    behind = Q(generated_until__isnull=True) | Q(generated_until__lt=now + timedelta(hours=26))
    scheduled = Workflow.objects.filter(behind, enabled=True, mode=Mode.ONLINE).exclude(revision__cron="")
    found = (
        scheduled.filter(revision__isnull=False).select_related("revision").order_by("generated_until", "pk")
    )
    done = 0
    for each in [each for each in found if _falls_short(each, now)][:limit]:
        try:
            generate(each.pk, now, wait=False)
            done += 1
        except Exception as error:
            if is_transient(error):
                raise
            # The others are not to go without their cycles for it.
            logger.exception("Could not generate the cycles of workflow %s", each.name)
    return done


def _falls_short(workflow: Workflow, now: datetime) -> bool:
    return workflow.generated_until is None or workflow.generated_until < horizon(workflow.current, now)


@transaction.atomic
def generate(workflow_id: int, now: datetime | None = None, *, wait: bool = True) -> int:
    """Make the cycle instances of a workflow up to its horizon; returns how many were new.

    Without `wait` it does nothing when somebody else holds the workflow.

    Cycles that were missed while nobody generated (no scheduler ran, or the workflow was switched off) are made
    good as its misfire policy says.
    """
    now = now or clock.now()
    workflow = Workflow.objects.locked([workflow_id], wait=wait).get(workflow_id)
    if workflow is None or not workflow.is_scheduled:
        return 0
    revision = workflow.current
    after = max(workflow.generated_until or now, workflow.starts_at - _MOMENT)
    until = horizon(revision, now)
    slots = []
    for slot in periods.slots(revision, after, until):
        slots.append(slot)
        if len(slots) == MOST_AT_ONCE:
            until = slot
            break
    workflow.generated_until = max(until, after)
    workflow.save(update_fields=["generated_until"])
    return len(make_online(workflow, _after_misfires(workflow, slots, now)))


def _after_misfires(workflow: Workflow, slots: Sequence[datetime], now: datetime) -> list[datetime]:
    missed = [slot for slot in slots if slot <= now]
    match workflow.current.misfire:
        case Misfire.SKIP:
            kept = []
        case Misfire.RUN_ONCE:
            # The last of a round is not the latest when there are more to come.
            kept = [slot for slot in missed[-1:] if slot == periods.latest_slot(workflow.current, now)]
        case _:
            kept = missed
    if len(kept) < len(missed):
        details = {
            "policy": workflow.current.misfire,
            "count": len(missed) - len(kept),
            "first_due": missed[0].isoformat(),
            "last_due": missed[-1].isoformat(),
        }
        journal.record("misfired", workflow, journal.SCHEDULE, details=details)
    return [*kept, *slots[len(missed) :]]


def make_online(workflow: Workflow, slots: Sequence[datetime]) -> list[CycleInstance]:
    """Scheduled instances of a locked workflow at these cycle times, where there is no instance yet.

    One that was cancelled does not count: the schedule may have dropped a cycle, and have it again now.
    """
    cycles = make_cycles(workflow, slots)
    taken = CycleInstance.objects.filter(cycle__in=[cycle.pk for cycle in cycles]).exclude(
        run_type=RunType.TEST
    )
    existing = set(taken.exclude(state=CycleState.CANCELLED).values_list("cycle_id", flat=True))
    fresh = [cycle for cycle in cycles if cycle.pk not in existing]
    made = new_instances(workflow, fresh, run_type=RunType.ONLINE, online=True)
    set_dependencies(workflow, fresh)
    return made


def make_cycles(workflow: Workflow, slots: Sequence[datetime]) -> list[Cycle]:
    """The cycles of a workflow at these times, made where they are missing, in the order of the times."""
    of_workflow = Cycle.objects.filter(workflow=workflow)
    found = {each.cycle_time: each for each in of_workflow.filter(cycle_time__in=list(slots))}
    missing = [slot for slot in slots if slot not in found]
    if missing:
        # Whoever needs cycles of several workflows makes them in an order of its own, and would wait for
        # another who made the same ones while that waits for it.
        execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _MAKING_CYCLES})
        Cycle.objects.bulk_create(
            [Cycle(workflow=workflow, cycle_time=slot) for slot in missing], ignore_conflicts=True
        )
        found |= {each.cycle_time: each for each in of_workflow.filter(cycle_time__in=missing)}
    return [found[slot] for slot in slots]


def new_instances(
    workflow: Workflow,
    cycles: Sequence[Cycle],
    *,
    run_type: str,
    by: journal.By = journal.SCHEDULE,
    released: bool = False,
    **values: Any,
) -> list[CycleInstance]:
    """Make one instance of each cycle of a locked workflow; `released`: whoever holds these lets go by that.

    `values` are further fields, of all of them.
    """
    revision = values.pop("revision", workflow.revision)
    who, now = journal.actor(by), clock.now()
    of_cycles = CycleInstance.objects.filter(cycle__in=[cycle.pk for cycle in cycles]).order_by("number")
    newest: dict[int, int] = dict(of_cycles.values_list("cycle_id", "number"))
    scheduled = run_type == RunType.ONLINE
    made = bulk.insert(
        [
            CycleInstance(
                cycle=cycle,
                workflow=workflow,
                team_id=workflow.team_id,
                revision=revision,
                cycle_time=cycle.cycle_time,
                data_date=periods.data_date(revision, cycle.cycle_time)
                if revision.cron
                else cycle.cycle_time.date(),
                number=newest.get(cycle.pk, 0) + 1,
                run_type=run_type,
                actor=who.name,
                requested_by_id=who.user_id,
                created_at=now,
                **{"due_at": cycle.cycle_time if scheduled else None} | values,
            )
            for cycle in cycles
        ]
    )
    if run_type != RunType.TEST:
        transitions.set_effective([cycle.pk for cycle in cycles], released=released)
    notifications.watch_cycles(made)
    return made


# --- what cycles wait for ----------------------------------------------------------------------------


def set_dependencies(workflow: Workflow, cycles: Sequence[Cycle]) -> None:
    """Let these cycles of a workflow wait for what its current revision says, and for nothing else."""
    revision = workflow.current
    dependencies = list(
        WorkflowDependency.objects.filter(revision=revision).select_related("upstream__revision")
    )
    CycleDependency.objects.filter(cycle__in=[cycle.pk for cycle in cycles]).delete()
    wanted: dict[tuple[int, datetime], list[Cycle]] = {}
    for dependency in dependencies:
        for cycle in cycles:
            for slot in upstream_slots(revision, dependency, cycle.cycle_time):
                wanted.setdefault((dependency.upstream_id, slot), []).append(cycle)
    upstreams = {}
    for dependency in dependencies:
        slots = sorted({slot for upstream_id, slot in wanted if upstream_id == dependency.upstream_id})
        for cycle in make_cycles(dependency.upstream, slots):
            upstreams[dependency.upstream_id, cycle.cycle_time] = cycle
    rows = {(cycle.pk, upstreams[key].pk) for key, those in wanted.items() for cycle in those}
    CycleDependency.objects.bulk_create(
        [CycleDependency(cycle_id=cycle, upstream_id=upstream) for cycle, upstream in sorted(rows)],
        ignore_conflicts=True,
    )


def upstream_slots(
    revision: WorkflowRevision, dependency: WorkflowDependency, cycle_time: datetime
) -> list[datetime]:
    """The cycle times of the upstream that the cycle at `cycle_time` waits for; none before it began."""
    upstream = dependency.upstream
    if upstream.revision is None or not upstream.revision.cron:
        return []
    return periods.upstream_slots(
        periods.Offset(dependency.offset),
        dependency.count,
        downstream=revision,
        cycle_time=cycle_time,
        upstream=upstream.revision,
        since=upstream.starts_at - _MOMENT,
    )


def regenerate(workflows: Iterable[Workflow], *, by: journal.By) -> None:
    """Bring what is not ready of these locked workflows into line with what they are now.

    Cycles that the schedule has no more are cancelled, the others get the current revision and what that
    depends on; new ones are made by the next round of `generate`.
    """
    for workflow in workflows:
        waiting = CycleInstance.objects.filter(
            workflow=workflow, state=CycleState.NOT_READY, run_type=RunType.ONLINE
        ).select_related("cycle")
        instances = list(waiting.select_for_update(no_key=True, of=("self",)).order_by("pk"))
        why = said(reasons.SCHEDULE_CHANGED) if workflow.mode == Mode.ONLINE else said(reasons.SWITCHED_OFFLINE)
        kept = [each for each in instances if _still_there(workflow, each)]
        for each in instances:
            if each not in kept:
                transitions.cancel(each.pk, by=by, reason=why)
        for each in kept:
            each.revision = workflow.revision
            each.data_date = periods.data_date(workflow.current, each.cycle_time)
        CycleInstance.objects.bulk_update(kept, ["revision", "data_date"], batch_size=1000)
        set_dependencies(workflow, [each.cycle for each in kept])
        transitions.make_ready(CycleInstance.objects.filter(pk__in=[each.pk for each in kept]))
        transitions.begin_ready(workflow)
        now = clock.now()
        if workflow.generated_until is not None and workflow.generated_until > now:
            workflow.generated_until = now
            workflow.save(update_fields=["generated_until"])


def _still_there(workflow: Workflow, instance: CycleInstance) -> bool:
    if workflow.mode != Mode.ONLINE or workflow.revision is None or instance.cycle_time < workflow.starts_at:
        return False
    return bool(workflow.revision.cron) and periods.is_slot(workflow.revision, instance.cycle_time)
