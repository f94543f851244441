"""The overview: what failed, what is late, what runs and where, and how the last day went.

Each part is bounded, by an index and by how much it shows, so the page costs the same at a million batches.
The parts that move are looked at every few seconds and only those that differ are sent; the timeline, which
counts a whole day, is asked for by the page that stands already (`overview_day`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from config import clock
from config.http import HtmxRequest
from scheduling import health
from scheduling.models import Batch, Instance, Node, Task
from scheduling.permissions import User
from scheduling.reasons import in_words
from scheduling.states import BatchState, NodeState
from scheduling.views.links import records, records_of, tab_of
from scheduling.views.node_rows import NodeRow, is_long_gone, load_of
from scheduling.views.rows import BatchRow
from scheduling.views.sections import Section, changes, context_of

TEMPLATE = "scheduling/overview.html"
DAY = timedelta(days=1)
# How many rows a part shows, and how far its figures count.
SHOWN = 8
NODES_SHOWN = 12
MOST_COUNTED = 1000
MOST_TASKS = 100
MOST_NODES = 500


@dataclass(frozen=True)
class Block:
    """A part that an app above fills: the template of its section, which takes `oob`, and what it shows.

    A section that lists what is late gives its `Lateness` as `lateness`, for the page's figure.
    """

    template: str
    section: Callable[[User, datetime], Section]


@dataclass(frozen=True)
class Lateness:
    """How many things a list of the page calls late, in words too, and the id of that list."""

    mark: str
    count: int
    capped: bool
    in_words: str


# They stand above what failed, in this order.
BLOCKS: list[Block] = []


@require_safe
def overview(request: HtmxRequest) -> HttpResponse:
    """The whole page."""
    now = clock.now()
    context = _parts(request.user, now)
    context |= context_of(context.pop("sections"))
    return render(request, TEMPLATE, context | {"time_zone": timezone.get_current_timezone_name()})


@require_safe
def overview_changes(request: HtmxRequest) -> HttpResponse:
    """The parts that differ from what the page shows."""
    parts = _parts(request.user, clock.now())
    return changes(request, f"{TEMPLATE}#changes", parts.pop("sections"), **parts)


def _parts(user: User, now: datetime) -> dict[str, Any]:
    """The `sections` of the page, and the `blocks` that apps above fill: (mark, template)."""
    filled = [block.section(user, now) for block in BLOCKS]
    blocks = [(section.mark, block.template) for section, block in zip(filled, BLOCKS, strict=True)]
    sections = [*filled, *_sections(user, now)]
    return {"sections": [_alarm(), _figures(sections), *sections], "blocks": blocks}


def _alarm() -> Section:
    """Why nothing is scheduled, when nothing is."""
    problem = health.scheduling().in_words()
    return Section("alarm", problem, {"alarm": problem})


def _sections(user: User, now: datetime) -> list[Section]:
    batches = Batch.objects.visible_to(user)
    failures = _failures(batches, now)
    late = _late(user, batches, now)
    running = _running(user, batches)
    nodes = _nodes(user, now)
    # What failed or runs is a task's, so that the table of tasks need not be asked.
    has_batch = bool(failures.context["failures"] or running.context["running"])
    return [_steps(user, nodes, has_batch=has_batch), failures, late, running, nodes]


def _figures(sections: Sequence[Section]) -> Section:
    """The figures of all `sections`, what is late of all of them in one."""
    figures: dict[str, Any] = {}
    late: list[Lateness] = []
    for section in sections:
        figures |= section.context.pop("figures", {})
        late += [each for each in [section.context.pop("lateness", None)] if each and each.count]
    figures |= {
        "late": late,
        "late_count": sum(each.count for each in late),
        "late_capped": any(each.capped for each in late),
    }
    return Section("figures", figures, {"figures": figures})


# --- what failed -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FailedTask:
    """A task that failed in the last day: how often, the batch that failed last, and why it did."""

    batch: Any
    count: int
    why: str
    address: str
    recovered: bool
    """A later batch of the task succeeded."""


def _failures(batches: Any, now: datetime) -> Section:
    tasks = list(batches.failures_by_task(now - DAY)[: MOST_TASKS + 1])
    counted = tasks[:MOST_TASKS]
    last_of = batches.failed_at(each["at"] for each in counted).with_recovered()
    recovered = set(last_of.filter(recovered=True).values_list("task", "ended_at"))
    # What failed last and has not succeeded since stands first.
    counted.sort(key=lambda each: (each["task"], each["at"]) in recovered)
    newest = batches.failed_at(each["at"] for each in counted[:SHOWN]).for_rows()
    last = {(batch.task_id, batch.ended_at): batch for batch in newest.with_failure(Instance.objects.all())}
    # A batch may be rerun, and so failed no more, between the two queries.
    rows = [
        _failed_task(last[key], each["count"], recovered=key in recovered)
        for each in counted[:SHOWN]
        if (key := (each["task"], each["at"])) in last
    ]
    figures = {
        "failed": sum(each["count"] for each in counted),
        "failed_tasks": len(counted),
        "unrecovered": sum((each["task"], each["at"]) not in recovered for each in counted),
        "failed_capped": len(tasks) > MOST_TASKS,
        "failed_address": records_of((row.batch.trigger for row in rows), window="1d", state="failed"),
    }
    return Section(
        "failures",
        [(row.batch.pk, row.count, row.why, row.recovered) for row in rows] + [len(tasks)],
        {"failures": rows, "more_failures": max(0, len(counted) - len(rows)), "figures": figures},
    )


def _failed_task(batch: Any, count: int, *, recovered: bool) -> FailedTask:
    address = records(tab=tab_of(batch.trigger), window="1d", state="failed", task=batch.task_id)
    return FailedTask(batch=batch, count=count, why=_why_failed(batch), address=address, recovered=recovered)


def _why_failed(batch: Any) -> str:
    """The reason of a failed batch in words: its own, or its first failed instance's."""
    missed = batch.failed + batch.timed_out
    share = ""
    if batch.total > 1 and missed:
        share = ngettext(
            "%(count)d of %(total)d instances did not succeed",
            "%(count)d of %(total)d instances did not succeed",
            missed,
        ) % {"count": missed, "total": batch.total}
    why = in_words(batch.reason or batch.failure or "")
    return ": ".join(filter(None, [share, why])) or _("Too few of its instances succeeded.")


# --- what is late ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Late:
    """A task that nobody fired (`batch` None), or a batch that was begun and does not start."""

    task: Any
    batch: Any
    since: datetime
    why: str


def _late(user: User, batches: Any, now: datetime) -> Section:
    before = now - timedelta(seconds=cast("float", settings.TAILRACE["MISFIRE_GRACE"]))
    overdue = list(
        Task.objects.visible_to(user).late(before).select_related("group", "team")[: MOST_COUNTED + 1]
    )
    waiting = batches.waiting_since(before)
    found = list(waiting.for_rows().select_related("task", "group").with_ahead()[:SHOWN])
    held_up = waiting.count_up_to(MOST_COUNTED) if len(found) == SHOWN else len(found)
    count = len(overdue) + held_up
    why_not_fired = _why_not_fired() if overdue else ""
    places = _places(found)
    rows = [Late(task, None, task.next_due_at, why_not_fired) for task in overdue[:SHOWN]]
    rows += [Late(batch.task, batch, batch.created_at, _why_waiting(batch, places)) for batch in found]
    capped = max(len(overdue), held_up) > MOST_COUNTED
    in_words = ngettext("%(n)s batch", "%(n)s batches", count) % {"n": count}
    return Section(
        "late",
        [(row.task.pk, row.batch and row.batch.pk, row.since, row.why) for row in rows] + [count],
        {
            "late": rows,
            "more_late": count - len(rows),
            "waiting_address": records_of((batch.trigger for batch in found), state="waiting"),
            "lateness": Lateness("late", count, capped, in_words),
        },
    )


def _why_not_fired() -> str:
    return health.scheduling().in_words() or _("A scheduler leads but has not fired it. Its log says why.")


@dataclass(frozen=True)
class Place:
    """How many slots the nodes of a group that claim have, and how many of them are taken."""

    slots: int
    taken: int
    draining: int


def _places(batches: Sequence[Any]) -> dict[int, Place]:
    groups = {batch.group_id for batch in batches}
    nodes = list(Node.objects.filter(group__in=groups).exclude(state=NodeState.OFFLINE)[:MOST_NODES])
    taken = Instance.objects.count_by_node(nodes)
    places = {}
    for group in groups:
        online = [node for node in nodes if node.group_id == group and node.state == NodeState.ONLINE]
        places[group] = Place(
            slots=sum(node.slots for node in online),
            taken=sum(taken.get(node.pk, 0) for node in online),
            draining=sum(node.group_id == group and node.state == NodeState.DRAINING for node in nodes),
        )
    return places


def _why_waiting(batch: Any, places: dict[int, Place]) -> str:
    place, group = places[batch.group_id], batch.group.name
    if batch.held and batch.ahead:
        return _("Held until batch %(id)d of the task has ended, as its overlap policy says.") % {
            "id": batch.ahead
        }
    if not place.slots and place.draining:
        return _("Every node of group %s that is there is draining. Take one back.") % group
    if not place.slots:
        return _("No node of group %s is online. Start one.") % group
    if place.taken >= place.slots:
        return ngettext(
            "The %(count)d slot of group %(group)s is taken.",
            "All %(count)d slots of group %(group)s are taken.",
            place.slots,
        ) % {"count": place.slots, "group": group}
    return _("Group %s has a free slot; others with a higher priority, or its own node, come first.") % group


# --- what runs -------------------------------------------------------------------------------------


def _running(user: User, batches: Any) -> Section:
    executing = batches.executing()
    rows = BatchRow.of(list(executing.for_rows()[:SHOWN]), user)
    running = executing.count_up_to(MOST_COUNTED) if len(rows) == SHOWN else len(rows)
    waits = batches.filter(state=BatchState.WAITING).order_by().values_list("trigger", flat=True)
    waiting = list(waits[: MOST_COUNTED + 1])
    figures = {
        "running": min(running, MOST_COUNTED),
        "running_capped": running > MOST_COUNTED,
        "waiting": min(len(waiting), MOST_COUNTED),
        "waiting_capped": len(waiting) > MOST_COUNTED,
        "waiting_address": records_of(waiting, state="waiting"),
    }
    return Section(
        "running",
        [(row.mark, row.digest) for row in rows] + [running],
        {
            "running": rows,
            "more_running": running - len(rows),
            "running_address": records_of(
                (row.batch.trigger for row in rows), state=["running", "terminating"]
            ),
            "figures": figures,
        },
    )


# --- nodes -----------------------------------------------------------------------------------------


def _nodes(user: User, now: datetime) -> Section:
    visible = Node.objects.visible_to(user)
    # What the figures need of each; whole rows, with group and team, of the few that are shown.
    nodes = list(visible.in_order().only("state", "slots", "heartbeat_at")[:MOST_NODES])
    taken = Instance.objects.count_by_node(nodes)
    near = [node for node in nodes if not is_long_gone(node, now)]
    states = Counter(node.state for node in near)
    in_use = sum(taken.get(node.pk, 0) for node in nodes if node.state != NodeState.OFFLINE)
    slots = sum(node.slots for node in nodes if node.state == NodeState.ONLINE)
    figures = {
        "taken": in_use,
        "slots": slots,
        "load": load_of(in_use, slots),
        "online": states[NodeState.ONLINE],
        "draining": states[NodeState.DRAINING],
        "offline": states[NodeState.OFFLINE],
    }
    # What needs a look stands first, then what is busiest.
    order = {NodeState.OFFLINE: 0, NodeState.DRAINING: 1, NodeState.ONLINE: 2}
    near.sort(key=lambda node: (order[NodeState(node.state)], -taken.get(node.pk, 0) / node.slots))
    shown = _node_rows(visible, near[:NODES_SHOWN], user, now, taken)
    return Section(
        "nodes",
        [(row.mark, row.digest) for row in shown] + [len(near)],
        {"nodes": shown, "more_nodes": len(near) - len(shown), "any_node": bool(nodes), "figures": figures},
    )


def _node_rows(
    visible: Any, shown: Sequence[Node], user: User, now: datetime, taken: Mapping[int, int]
) -> list[NodeRow]:
    whole = visible.for_rows().in_bulk([node.pk for node in shown])
    found = [whole[node.pk] for node in shown if node.pk in whole]
    return NodeRow.of(found, user, now, taken=taken)


# --- an installation that is new -------------------------------------------------------------------


def _steps(user: User, nodes: Section, *, has_batch: bool) -> Section:
    """What is left to do before anything can run; all done, and the part is gone from sight."""
    has_task = has_batch or Task.objects.visible_to(user).exists()
    has_node = nodes.context["any_node"]
    return Section(
        "steps",
        (has_task, has_node),
        {
            "new_here": not (has_task and has_node),
            "has_task": has_task,
            "has_node": has_node,
        },
    )
