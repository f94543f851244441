"""The plan of a rerun: everything downstream of its source, what is chosen of it, and what that would do.

It is reckoned anew from the cycles as they stand whenever it is shown; only what is chosen is stored.
`print(plan_of(rerun))` shows it in the shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.utils.translation import gettext as _

from reruns import planning
from reruns.affected import Row
from reruns.eligibility import NOT_DOWNSTREAM, Content, Holder, Refusal, in_part
from reruns.errors import Drift, RerunRefused
from reruns.estimates import seconds_of
from reruns.models import Action, Rerun, RerunItem
from reruns.situation import Situation, situation_of
from scheduling.models import Membership
from scheduling.models.teams import Role
from workflows.states import CycleState


class Selected(NamedTuple):
    """A chosen cycle: which of its nodes (none: all), and the instance and state that the plan showed."""

    nodes: tuple[str, ...]
    original_id: int
    seen_state: str
    name: str


@dataclass(frozen=True)
class Summary:
    """What will happen, counted. `terminated` are among the `instances`.

    `unknown` of these never succeeded yet, so that their durations count as nothing.
    """

    instances: int
    nodes: int
    terminated: int
    frozen: int
    skipped: int
    waves: int
    longest_path_seconds: float
    total_seconds: float
    ends_at: datetime
    unknown: int


class Missing(NamedTuple):
    """A team that owns tasks which the user may not rerun, and whom to ask there; of how many instances."""

    team: str
    workflows: list[str]
    people: list[str]
    instances: int


class Conflict(NamedTuple):
    """Another active rerun, and the cycles that it holds."""

    rerun: Holder
    cycles: list[Candidate]


class Candidate:
    """One cycle downstream (or the source) with its effective instance, as the plan has it. Only to be read."""

    __slots__ = ("_at", "_plan")

    def __init__(self, plan: Plan, at: int) -> None:
        self._plan, self._at = plan, at

    def __repr__(self) -> str:
        return f"<{self.name}: {self.action or (self.refusal and self.refusal.kind)}>"

    @property
    def plan(self) -> Plan:
        return self._plan

    @property
    def content(self) -> Content:
        """The nodes of what would run, and which of them the user may rerun."""
        return self._plan.situation.content(self._at)

    @property
    def _row(self) -> Row:
        return self._plan.situation.affected.rows[self._at]

    @property
    def _workflow(self) -> Any:
        return self._plan.situation.affected.workflows[self._row.workflow_id]

    @property
    def cycle_id(self) -> int:
        return self._row.cycle_id

    @property
    def instance_id(self) -> int:
        return self._row.instance_id or 0

    @property
    def workflow_id(self) -> int:
        return self._row.workflow_id

    @property
    def workflow(self) -> str:
        return str(self._workflow.name)

    @property
    def team_id(self) -> int:
        return int(self._workflow.team_id)

    @property
    def team(self) -> str:
        return str(self._workflow.team)

    @property
    def name(self) -> str:
        return self._plan.situation.affected.name(self._at)

    @property
    def cycle_time(self) -> datetime:
        """On the clocks of the workflow's zone."""
        affected = self._plan.situation.affected
        return self._row.cycle_time.astimezone(affected.zones[self._row.revision_id])

    @property
    def data_date(self) -> date:
        return self._row.data_date

    @property
    def state(self) -> str:
        return self._row.state

    @property
    def state_label(self) -> str:
        return str(CycleState(self._row.state).label)

    @property
    def is_source(self) -> bool:
        return self._at == self._plan.situation.affected.source

    @property
    def action(self) -> str:
        """What would be done to it; empty when it cannot be chosen."""
        return self._plan.situation.actions[self._at]

    @property
    def action_label(self) -> str:
        return str(Action(self.action).label) if self.action else ""

    @property
    def refusal(self) -> Refusal | None:
        return self._plan.situation.refusals[self._at]

    @property
    def chosen(self) -> bool:
        return self.cycle_id in self._plan.selection

    @property
    def nodes(self) -> tuple[str, ...]:
        """The keys of the nodes that are chosen; none means all of them."""
        selected = self._plan.selection.get(self.cycle_id)
        return selected.nodes if selected else ()

    @property
    def node_total(self) -> int:
        return len(self.content.nodes)

    @property
    def node_count(self) -> int:
        """How many of its nodes are chosen."""
        return (len(self.nodes) or self.node_total) if self.chosen else 0

    @property
    def permitted_nodes(self) -> int:
        return len(self.content.permitted)

    @property
    def wave(self) -> int:
        """From 1; what is frozen comes after the last, and 0 is what is not chosen."""
        if self._at in self._plan.waves:
            return self._plan.waves[self._at]
        return self._plan.summary.waves + 1 if self._at in self._plan.frozen else 0

    @property
    def starts(self) -> float | None:
        """Seconds from the beginning; of what is frozen, when it would be let go."""
        if self._at in self._plan.frozen:
            return self._plan.schedule.total
        return self._plan.schedule.starts.get(self._at)

    @property
    def ends(self) -> float | None:
        if self._at in self._plan.frozen:
            return self._plan.schedule.total
        return self._plan.schedule.ends.get(self._at)

    @property
    def upstream(self) -> list[int]:
        """The ids of the cycles that it waits for directly and that are affected too."""
        affected = self._plan.situation.affected
        return [affected.rows[at].cycle_id for at in affected.graph.upstreams[self._at]]

    @property
    def outlook(self) -> str:
        """When it is neither ready nor chosen: it `waits` for the rerun, or runs `as_planned`; else empty."""
        return self._plan.outlooks.get(self._at, "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and (self._plan, self._at) == (other._plan, other._at)

    def __hash__(self) -> int:
        return hash(self._at)


class Plan:
    """What a rerun would do as things stand at `situation.now`.

    `candidates` are in an order in which each comes after all that it waits for. What is chosen but cannot be
    done any more is `lost`, and among the `drift`.
    """

    def __init__(self, rerun: Rerun, situation: Situation, selection: Mapping[int, Selected]) -> None:
        self.rerun, self.situation, self.selection = rerun, situation, selection
        self.rerun_at: dict[int, tuple[str, ...]] = {}
        self.frozen: dict[int, tuple[str, ...]] = {}
        self.lost: dict[int, Refusal] = {}
        """Why each chosen cycle, by id, cannot be done any more."""
        for cycle_id, selected in selection.items():
            at = situation.affected.position.get(cycle_id, -1)
            if refusal := self._refuses(at, selected):
                self.lost[cycle_id] = refusal
            else:
                target = self.frozen if situation.actions[at] == Action.FREEZE else self.rerun_at
                target[at] = selected.nodes

    def _refuses(self, at: int, selected: Selected) -> Refusal | None:
        if at < 0:
            return NOT_DOWNSTREAM
        if refusal := self.situation.refusals[at]:
            return refusal
        content = self.situation.content(at)
        return None if content.allows(selected.nodes) else content.nodes_refusal(selected.nodes)

    def __str__(self) -> str:
        from reruns.printing import printed

        return printed(self)

    # --- what there is -----------------------------------------------------------------------------

    @cached_property
    def candidates(self) -> list[Candidate]:
        affected = self.situation.affected
        return [Candidate(self, at) for at in affected.graph.order if affected.rows[at].instance_id is not None]

    @property
    def chosen(self) -> list[Candidate]:
        """Those that are chosen and can be done."""
        return [each for each in self.candidates if each._at in self.rerun_at or each._at in self.frozen]

    @property
    def refused(self) -> list[Candidate]:
        refusals = self.situation.refusals
        return [each for each in self.candidates if refusals[each._at] is not None]

    @property
    def source(self) -> Candidate:
        return Candidate(self, self.situation.affected.source)

    def candidate(self, cycle_id: int) -> Candidate | None:
        at = self.situation.affected.position.get(cycle_id)
        if at is None or self.situation.affected.rows[at].instance_id is None:
            return None
        return Candidate(self, at)

    def subtree(self, cycle_id: int) -> list[Candidate]:
        """A candidate's cycle and all that is downstream of it, in the plan's order."""
        affected = self.situation.affected
        at = affected.position[cycle_id]
        found = [at, *affected.graph.below(at)]
        return [Candidate(self, each) for each in found if affected.rows[each].instance_id is not None]

    # --- in which order, and when ------------------------------------------------------------------

    @cached_property
    def waves(self) -> dict[int, int]:
        return planning.waves(self.situation.affected.graph, self.rerun_at)

    @cached_property
    def _seconds(self) -> tuple[dict[int, float], int]:
        return seconds_of(self.situation, self.rerun_at)

    @cached_property
    def schedule(self) -> planning.Schedule:
        affected = self.situation.affected
        return planning.simulate(
            affected.graph,
            self._seconds[0],
            limit=self.rerun.parallelism,
            lanes={at: affected.rows[at].workflow_id for at in self.rerun_at},
            room={pk: workflow.parallelism for pk, workflow in affected.workflows.items()},
        )

    @cached_property
    def longest_path(self) -> list[Candidate]:
        """The chosen instances that decide how long it takes at least, in order."""
        return [Candidate(self, at) for at in self._longest[1]]

    @cached_property
    def _longest(self) -> tuple[float, list[int]]:
        return planning.longest_path(self.situation.affected.graph, self._seconds[0])

    @cached_property
    def dependencies(self) -> dict[int, set[int]]:
        """The chosen cycles that each one to be rerun waits for, by ids; RerunRefused when far too many."""
        affected = self.situation.affected
        try:
            found = planning.contract(affected.graph, self.rerun_at)
        except planning.TooManyDependencies as exc:
            raise RerunRefused(
                _(
                    "Too many of the chosen instances wait for too many others through instances that were not "
                    "chosen. Choose what lies in between too, such as %(names)s, or choose fewer."
                )
                % {"names": in_part([self._called(at) for at in exc.between])}
            ) from None
        rows = affected.rows
        return {rows[at].cycle_id: {rows[up].cycle_id for up in ups} for at, ups in found.items()}

    def _called(self, at: int) -> str:
        affected = self.situation.affected
        row = affected.rows[at]
        if row.instance_id is not None:
            return affected.name(at)
        return f"{affected.workflows[row.workflow_id].name} {row.cycle_time:%Y-%m-%d %H:%M} UTC"

    @cached_property
    def outlooks(self) -> dict[int, str]:
        affected = self.situation.affected
        # Whatever waits for a cycle that does not succeed before the rerun's result waits for that result.
        holds_up: set[int] = {*self.rerun_at, *self.frozen}
        found = {}
        for at in affected.graph.order:
            row = affected.rows[at]
            if row.state != CycleState.NOT_READY or at in self.frozen or row.frozen_at is not None:
                continue
            waits = row.waits and any(up in holds_up for up in affected.graph.upstreams[at])
            found[at] = "waits" if waits else "as_planned"
            if waits:
                holds_up.add(at)
        return found

    @cached_property
    def summary(self) -> Summary:
        actions, content = self.situation.actions, self.situation.content
        return Summary(
            instances=len(self.rerun_at),
            nodes=sum(len(nodes) or len(content(at).nodes) for at, nodes in self.rerun_at.items()),
            terminated=sum(actions[at] == Action.TERMINATE for at in self.rerun_at),
            frozen=len(self.frozen),
            skipped=len(self.candidates) - len(self.rerun_at) - len(self.frozen),
            waves=max(self.waves.values(), default=0),
            longest_path_seconds=self._longest[0],
            total_seconds=self.schedule.total,
            ends_at=self.situation.now + timedelta(seconds=self.schedule.total),
            unknown=self._seconds[1],
        )

    # --- what differs from what was shown, and what stands against it --------------------------------

    @cached_property
    def drift(self) -> list[Drift]:
        """What became of chosen cycles since they were chosen."""
        found = []
        for cycle_id, selected in self.selection.items():
            refusal = self.lost.get(cycle_id)
            candidate = self.candidate(cycle_id)
            now = self._stands(candidate) if candidate else ""
            was = _stood(selected.seen_state, selected.original_id)
            if refusal is not None:
                found.append(Drift(selected.name, was, refusal.in_short))
            elif now != was:
                found.append(Drift(selected.name, was, now))
        return found

    def _stands(self, candidate: Candidate) -> str:
        return _stood(candidate.state, candidate.instance_id)

    @cached_property
    def missing(self) -> list[Missing]:
        """Whose permission lacks for what, by team."""
        lacking: dict[str, tuple[set[int], dict[int, None], int]] = {}
        counted: dict[tuple[int, int], int] = {}
        for row, refusal in zip(self.situation.affected.rows, self.situation.refusals, strict=True):
            if row.instance_id is not None and (
                refusal is None or refusal.kind in {"permission", "freeze_mode"}
            ):
                of = (row.workflow_id, self.situation.content_id(row))
                counted[of] = counted.get(of, 0) + 1
        for (workflow, content), count in counted.items():
            owners = {node.team: node.team_id for node in self.situation.contents[content].lacking}
            for team, team_id in owners.items():
                ids, workflows, instances = lacking.get(team, (set(), {}, 0))
                workflows[workflow] = None
                lacking[team] = ({*ids, team_id}, workflows, instances + count)
        people = _owners({pk for ids, _workflows, _count in lacking.values() for pk in ids})
        names = self.situation.affected.workflows
        return [
            Missing(team, sorted(names[pk].name for pk in workflows), people.get(team, []), instances)
            for team, (_ids, workflows, instances) in sorted(lacking.items())
        ]

    @cached_property
    def conflicts(self) -> list[Conflict]:
        """Which cycles other active reruns hold."""
        found: dict[int, list[Candidate]] = {}
        for cycle_id, holder in self.situation.held.items():
            if candidate := self.candidate(cycle_id):
                found.setdefault(holder, []).append(candidate)
        return [Conflict(self.situation.holders[pk], cycles) for pk, cycles in sorted(found.items())]


def _stood(state: str, instance_id: int | None) -> str:
    return _("%(state)s (run %(id)s)") % {"state": CycleState(state).label, "id": instance_id}


def _owners(teams: set[int]) -> dict[str, list[str]]:
    """The usernames of the owners of each team, by the team's name."""
    if not teams:
        return {}
    owners = Membership.objects.filter(team__in=teams, role=Role.OWNER, user__is_active=True)
    found: dict[str, list[str]] = {}
    for team, username in owners.order_by("user__username").values_list("team__name", "user__username"):
        found.setdefault(team, []).append(username)
    return found


def selection_of(rerun: Rerun) -> dict[int, Selected]:
    """What is stored as chosen, by cycle id, the source first."""
    items = RerunItem.objects.filter(rerun=rerun.pk).order_by("-is_source", "pk")
    rows = items.values_list("cycle_id", "nodes", "original_id", "seen_state", "name")
    return {cycle: Selected(tuple(nodes), *rest) for cycle, nodes, *rest in rows}


def source_cycle(rerun: Rerun) -> int:
    """The id of the cycle that a rerun begins at."""
    return int(RerunItem.objects.filter(rerun=rerun.pk, is_source=True).values_list("cycle_id", flat=True)[0])


def plan_of(rerun: Rerun, *, user: Any = None, now: datetime | None = None) -> Plan:
    """What a saved draft would do as things stand now, and all that could be chosen beside.

    `user` is whose permission counts; without one (the shell) nobody's is asked. Raises RerunRefused when the
    cycle that it begins at is gone.
    """
    selection = selection_of(rerun)
    return Plan(rerun, situation_of(rerun, next(iter(selection)), user=user, now=now), selection)
