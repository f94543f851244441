"""What pages show of cycle instances, workflows and backfills, and what their reader may do to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling import charts, clocks
from scheduling.permissions import Rights, User, places_of
from scheduling.templatetags.tailrace import address, duration, label
from scheduling.views.rows import digest_of
from scheduling.views.task_rows import Performance, Recent, Switch
from scheduling.words import until
from workflows import periods, words
from workflows.models import Backfill, Cycle, CycleInstance, NodeRun, Workflow, WorkflowDependency
from workflows.permissions import EDIT, RERUN, RUN, STOP
from workflows.queries import counts_by_backfill, newest_cycles
from workflows.states import BACKFILL, CYCLE, BackfillState, CycleState

# How many recent cycles a row's strip and figures are over.
RECENT = 20


@dataclass(frozen=True)
class Entry:
    """What an app above offers on an instance, in its menu and on its page; a `refusal` says why not now."""

    verb: str
    label: str
    drawing: str
    address: str
    refusal: str = ""


# Asked of an instance with its cycle, of what its reader may do to it, and of the time zone of its revision.
ENTRIES: list[Callable[[CycleInstance, frozenset[str], str], Entry | None]] = []


def entries_of(instance: CycleInstance, may: frozenset[str], zone: str) -> tuple[Entry, ...]:
    """What the apps above offer on an instance."""
    offered = (offer(instance, may, zone) for offer in ENTRIES)
    return tuple(entry for entry in offered if entry is not None)


@dataclass(frozen=True)
class CycleRow:
    """A cycle instance with how many of its nodes run; `may` are the permissions of this user on it."""

    instance: CycleInstance
    running: int
    may: frozenset[str]
    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, instances: Sequence[CycleInstance], user: User) -> list[CycleRow]:
        """One row an instance, in two queries however many there are (one of them for the user's roles)."""
        running = NodeRun.objects.all().running_by_instance(instances)
        allowed: dict[int, frozenset[str]] = {}
        for each in instances:
            if each.team_id not in allowed:
                # It is teams that permissions are about.
                allowed[each.team_id] = frozenset(
                    permission for permission in (STOP, RERUN) if user.has_perm(permission, each)
                )
        return [
            cls(each, running.get(each.pk, 0), may, entries_of(each, may, each.zone))
            for each in instances
            for may in [allowed[each.team_id]]
        ]

    def allows(self, verb: str) -> bool:
        """Whether this user may do `verb` to it as it stands."""
        return PERMISSIONS[verb] in self.may and POSSIBLE[verb](self.instance)

    @property
    def mark(self) -> str:
        return f"cycle-{self.instance.pk}"

    @property
    def digest(self) -> str:
        it = self.instance
        counters = (it.total, it.succeeded, it.failed, it.passed_over, self.running)
        times = (it.ready_at, it.started_at, it.ended_at)
        held = (it.frozen_at, it.holder, it.is_held)
        # A set tells its members in another order in every process that answers.
        may = sorted(self.may)
        stands = (it.state, it.stopping, it.is_replaced, it.is_recovered)
        return digest_of(stands, counters, times, held, it.reason, may, self.entries)


PERMISSIONS = {"stop": STOP, "freeze": RERUN, "unfreeze": RERUN, "mark-success": RERUN, "rerun": RERUN}
POSSIBLE: Mapping[str, Any] = {
    "stop": lambda it: it.can_stop,
    "freeze": lambda it: it.can_freeze,
    # What holds it alone lets it go.
    "unfreeze": lambda it: it.is_frozen and not it.holder,
    "mark-success": lambda it: it.can_mark_success,
    "rerun": lambda it: it.can_rerun and not it.cycle.holder,
}


# --- workflows -------------------------------------------------------------------------------------


@dataclass(slots=True)
class ShownCycle(charts.Run):
    """A cycle as the charts draw it: its effective run, and its cycle time in seconds of the epoch."""

    epoch: float

    @property
    def at(self) -> datetime:
        """Its cycle time."""
        return datetime.fromtimestamp(self.epoch, UTC)

    @property
    def address(self) -> str:
        """The page of its effective run."""
        return address("cycle-detail", self.pk)

    def get_state_display(self) -> str:
        """The state in words."""
        return label(CycleState, self.state)

    @property
    def title(self) -> str:
        """The cycle in words."""
        named = {
            "at": clocks.titled(self.at),
            "state": self.get_state_display(),
        }
        if self.took is None:
            return _("Cycle %(at)s: %(state)s") % named
        named["took"] = duration(timedelta(seconds=self.took))
        return _("Cycle %(at)s: %(state)s, took %(took)s") % named


def cycles_of(workflows: Sequence[Workflow], now: datetime, *, size: int) -> dict[int, list[ShownCycle]]:
    """The `size` newest cycles of each of `workflows` that have come, oldest first, in one query."""
    listed = Workflow.objects.filter(pk__in=[workflow.pk for workflow in workflows])
    return {
        pk: [ShownCycle(each["pk"], each["state"], each["took"], each["at"]) for each in reversed(cycles)]
        for pk, cycles in newest_cycles(listed, Cycle.objects.all(), now, size=size).items()
    }


@dataclass(frozen=True)
class Upstream:
    """A workflow that another waits for; `address` is empty when the reader may not see it."""

    name: str
    team: str
    address: str
    said: str = ""


@dataclass(frozen=True)
class WorkflowRow:
    """A workflow with its recent cycles, what it waits for, and what this user may do to it."""

    workflow: Workflow
    cycles: list[ShownCycle]
    upstreams: list[Upstream]
    next_at: datetime | None
    may_run: bool
    may_edit: bool

    @classmethod
    def of(cls, workflows: Sequence[Workflow], user: User, *, size: int = RECENT) -> list[WorkflowRow]:
        """One row a workflow, in three queries however many there are (one of them for the user's roles)."""
        now = timezone.now()
        cycles = cycles_of(workflows, now, size=size)
        upstreams = upstreams_of(workflows, user)
        rights = Rights(user)
        return [
            cls(
                workflow=workflow,
                cycles=cycles.get(workflow.pk, []),
                upstreams=upstreams.get(workflow.revision_id or 0, []),
                next_at=periods.next_slot(workflow.current, now) if workflow.is_scheduled else None,
                may_run=workflow.revision_id is not None and rights.has(RUN, workflow),
                may_edit=rights.has(EDIT, workflow),
            )
            for workflow in workflows
        ]

    @property
    def mark(self) -> str:
        return f"workflow-{self.workflow.pk}"

    @property
    def digest(self) -> str:
        workflow = self.workflow
        return digest_of(
            (workflow.name, workflow.enabled, workflow.mode, workflow.revision_id),
            self.next_at and until(self.next_at, timezone.now()),
            [(cycle.pk, cycle.state, cycle.took) for cycle in self.cycles],
            (self.may_run, self.may_edit),
        )

    @property
    def switch(self) -> Switch:
        return Switch("enabled" if self.workflow.enabled else "disabled")

    @property
    def last(self) -> ShownCycle | None:
        """The newest cycle that has come."""
        return self.cycles[-1] if self.cycles else None

    @property
    def schedule(self) -> str:
        """When its cycles are, in words."""
        return words.of_schedule(self.workflow.revision)

    @property
    def performance(self) -> Performance:
        return Performance.of(self.cycles)

    @property
    def recent(self) -> Recent:
        """How its recent cycles went."""
        performance = self.performance
        return Recent.of(
            self.cycles,
            performance,
            ngettext(
                "The last cycle: %(rate)s succeeded, median %(median)s",
                "The last %(n)s cycles: %(rate)s succeeded, median %(median)s",
                performance.count,
            ),
        )


def upstreams_of(workflows: Sequence[Workflow], user: User) -> dict[int, list[Upstream]]:
    """What each current revision of `workflows` (by its id) waits for, other than itself; in one query."""
    revisions = [workflow.revision_id for workflow in workflows if workflow.revision_id]
    found: dict[int, list[Upstream]] = {}
    seen = frozenset(places_of(user)["team"])
    dependencies = WorkflowDependency.objects.filter(revision__in=revisions)
    for each in dependencies.select_related("upstream__team", "revision").order_by("pk"):
        shown = _upstream(each.upstream, seen, words.of_offset(each))
        if each.upstream_id != each.revision.workflow_id:
            found.setdefault(each.revision_id, []).append(shown)
    return found


def downstreams_of(workflow: Workflow, user: User) -> list[Upstream]:
    """The workflows whose current revision waits for `workflow`, by name; other teams' too."""
    waiting = Workflow.objects.depending_on([workflow.pk]).select_related("team").order_by("name", "pk")
    seen = frozenset(places_of(user)["team"])
    return [_upstream(each, seen) for each in waiting]


def _upstream(workflow: Workflow, seen: frozenset[int], said: str = "") -> Upstream:
    where = address("workflow-detail", workflow.pk) if workflow.team_id in seen else ""
    return Upstream(workflow.name, workflow.team.name, where, said)


# --- backfills -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackfillRow:
    """A backfill with how its cycles stand, and what this user may do to it now."""

    backfill: Backfill
    counts: Mapping[str, int]
    may_pause: bool
    may_resume: bool
    may_terminate: bool

    @classmethod
    def of(cls, backfills: Sequence[Backfill], user: User) -> list[BackfillRow]:
        """One row a backfill, in two queries however many there are (one of them for the user's roles)."""
        counts = counts_by_backfill(CycleInstance.objects.all(), backfills)
        rows = []
        for each in backfills:
            may = user.has_perm(STOP, each)
            rows.append(
                cls(
                    backfill=each,
                    counts=counts.get(each.pk, {}),
                    may_pause=may and BACKFILL.allows(each.state, BackfillState.PAUSED),
                    may_resume=may and BACKFILL.allows(each.state, BackfillState.RUNNING),
                    may_terminate=may and BACKFILL.allows(each.state, BackfillState.TERMINATING),
                )
            )
        return rows

    @property
    def mark(self) -> str:
        return f"backfill-{self.backfill.pk}"

    @property
    def digest(self) -> str:
        may = (self.may_pause, self.may_resume, self.may_terminate)
        return digest_of(self.backfill.state, sorted(self.counts.items()), self.backfill.ended_at, may)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        """How many of its cycles have ended, however they did."""
        return sum(count for state, count in self.counts.items() if state in CYCLE.final)
