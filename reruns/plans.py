"""The plan of a rerun: everything downstream of its source, what is chosen of it, and what that would do.

It is reckoned anew from the cycles as they stand whenever it is shown; only what is chosen is stored.
`print(plan_of(rerun))` shows it in the shell.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from reruns import planning
from reruns.affected import very_many
from reruns.candidates import Candidate, Candidates
from reruns.eligibility import NOT_DOWNSTREAM, Holder, Refusal, in_part, nodes_gone_refusal
from reruns.errors import Drift, Hole, RerunRefused
from reruns.estimates import seconds_of
from reruns.models import Action, Rerun
from reruns.planning import MOST_DEPENDENCIES
from reruns.situation import Situation, situation_of
from scheduling.models import Membership
from scheduling.models.teams import Role
from workflows.states import CycleState

# An enum's member is looked up by way of its class: too slow for each of very many.
FREEZE = Action.FREEZE.value
NOT_READY = CycleState.NOT_READY.value
# The states of cycles with a result that others may have read, or soon read.
HAS_RUN = frozenset(
    state.value for state in (CycleState.SUCCESS, CycleState.FAILED, CycleState.TERMINATED, CycleState.RUNNING)
)


class Selected(NamedTuple):
    """A chosen cycle: its nodes (none: all), and as they were shown its instance, state and count of nodes."""

    nodes: tuple[str, ...]
    original_id: int
    seen_state: str
    name: str
    node_total: int


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
    """Another active rerun, and the cycles that it concerns."""

    rerun: Holder
    cycles: list[Candidate]


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
            at = situation.affected.position.get(cycle_id)
            if at is None:
                self.lost[cycle_id] = NOT_DOWNSTREAM
                continue
            verdict = situation.verdicts[at]
            if verdict.refusal is not None:
                self.lost[cycle_id] = verdict.refusal
            elif not verdict.content.allows(selected.nodes):
                self.lost[cycle_id] = verdict.content.nodes_refusal(selected.nodes)
            elif selected.nodes and (gone := verdict.content.unknown(selected.nodes)):
                self.lost[cycle_id] = nodes_gone_refusal(gone)
            elif verdict.action == FREEZE:
                self.frozen[at] = selected.nodes
            else:
                self.rerun_at[at] = selected.nodes

    def __str__(self) -> str:
        from reruns.printing import printed

        return printed(self)

    # --- what there is -----------------------------------------------------------------------------

    @cached_property
    def candidates(self) -> Candidates:
        return self._with_instance(self.situation.affected.graph.order)

    def _with_instance(self, cycles: Iterable[int]) -> Candidates:
        known = self.situation.affected.instance_id
        return Candidates(self, [at for at in cycles if known[at] is not None])

    @property
    def chosen(self) -> list[Candidate]:
        """Those that are chosen and can be done."""
        return [each for each in self.candidates if each._at in self.rerun_at or each._at in self.frozen]

    @property
    def refused(self) -> list[Candidate]:
        return [each for each in self.candidates if each.refusal is not None]

    @property
    def source(self) -> Candidate:
        return Candidate(self, self.situation.affected.source)

    def candidate(self, cycle_id: int) -> Candidate | None:
        at = self.situation.affected.position.get(cycle_id)
        if at is None or self.situation.affected.instance_id[at] is None:
            return None
        return Candidate(self, at)

    def subtree(self, cycle_id: int) -> Candidates:
        """A candidate's cycle and all that is downstream of it, in the plan's order."""
        affected = self.situation.affected
        at = affected.position[cycle_id]
        return self._with_instance([at, *affected.graph.below(at)])

    # --- in which order, and when ------------------------------------------------------------------

    @cached_property
    def waves(self) -> dict[int, int]:
        return planning.waves(self._graph, self.rerun_at)

    @cached_property
    def _graph(self) -> planning.CycleGraph:
        """What leads to anything that is rerun: of very many cycles, mostly a few."""
        return self.situation.affected.graph.leading_to(self.rerun_at)

    @cached_property
    def _seconds(self) -> tuple[dict[int, float], int]:
        return seconds_of(self.situation, self.rerun_at)

    @cached_property
    def schedule(self) -> planning.Schedule:
        affected = self.situation.affected
        return planning.simulate(
            self._graph,
            self._seconds[0],
            limit=self.rerun.parallelism,
            lanes=affected.workflow_id,
            room={pk: workflow.parallelism for pk, workflow in affected.workflows.items()},
        )

    @cached_property
    def longest_path(self) -> Candidates:
        """The chosen instances that decide how long it takes at least, in order."""
        return Candidates(self, self._longest[1])

    @cached_property
    def _longest(self) -> tuple[float, list[int]]:
        return planning.longest_path(self._graph, self._seconds[0])

    @cached_property
    def dependencies(self) -> dict[int, set[int]]:
        """The chosen cycles that each one to be rerun waits for, by ids; RerunRefused when far too many."""
        affected = self.situation.affected
        try:
            found = planning.contract(self._graph, self.rerun_at, most=MOST_DEPENDENCIES)
        except planning.TooManyDependencies as exc:
            raise RerunRefused(
                _(
                    "Too many of the chosen instances wait for too many others through instances that were not "
                    "chosen. Choose what lies in between too, such as %(names)s, or choose fewer."
                )
                % {"names": in_part([affected.name(at) for at in exc.between])}
            ) from None
        ids = affected.cycle_id
        return {ids[at]: {ids[up] for up in ups} for at, ups in found.items()}

    @cached_property
    def outlooks(self) -> dict[int, str]:
        affected = self.situation.affected
        # Whatever waits for a cycle that does not succeed before the rerun's result waits for that result.
        holds_up: set[int] = {*self.rerun_at, *self.frozen}
        found = {}
        for at in affected.graph.order:
            if affected.state[at] != NOT_READY or at in self.frozen or at in affected.frozen:
                continue
            waits = affected.waits[at] and any(up in holds_up for up in affected.graph.upstreams[at])
            found[at] = "waits" if waits else "as_planned"
            if waits:
                holds_up.add(at)
        return found

    @cached_property
    def summary(self) -> Summary:
        verdicts = self.situation.verdicts
        alike = Counter(map(verdicts.__getitem__, self.rerun_at))
        carried = sum(
            len(verdicts[at].content.nodes) - len(nodes) for at, nodes in self.rerun_at.items() if nodes
        )
        return Summary(
            instances=len(self.rerun_at),
            nodes=sum(count * len(verdict.content.nodes) for verdict, count in alike.items()) - carried,
            terminated=sum(count for each, count in alike.items() if each.action == Action.TERMINATE),
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
        affected = self.situation.affected
        planned_at = self.rerun.changed_at
        found = []
        for cycle_id, selected in self.selection.items():
            was = (selected.seen_state, selected.original_id)
            if refusal := self.lost.get(cycle_id):
                found.append(Drift(selected.name, _stood(*was), refusal.in_short))
                continue
            at = affected.position[cycle_id]
            stands = (affected.state[at], affected.instance_id[at])
            content = self.situation.verdicts[at].content
            nodes = len(content.nodes)
            if was != stands:
                found.append(Drift(selected.name, _stood(*was), _stood(*stands)))
            elif nodes != selected.node_total:
                # Its workflow was edited.
                found.append(Drift(selected.name, _counted(selected.node_total), _counted(nodes)))
            elif not self.situation.as_it_ran and content.edited_at and content.edited_at > planned_at:
                found.append(Drift(selected.name, _counted(nodes), _edited(nodes, content.edited_at)))
        return found

    @cached_property
    def holes(self) -> list[Hole]:
        """What chosen cycles read directly that is downstream of the source too, has run, and is not chosen."""
        affected, found = self.situation.affected, []
        for at in affected.graph.order:
            if self._is_in(at):
                for up in self._unrepaired(at):
                    ids = affected.cycle_id[at], affected.cycle_id[up]
                    found.append(Hole(ids[0], affected.stored_name(at), ids[1], affected.stored_name(up)))
        return found

    @cached_property
    def between(self) -> set[int]:
        """The cycles (ids) that close all `holes` when they are chosen too, as far as they can be chosen."""
        affected, verdicts = self.situation.affected, self.situation.verdicts
        found: set[int] = set()
        # Upstream cycles come first in the order, so this looks at each after all that read it.
        for at in reversed(affected.graph.order):
            if self._is_in(at) or at in found:
                found.update(up for up in self._unrepaired(at) if verdicts[up].refusal is None)
        return {affected.cycle_id[at] for at in found}

    def _is_in(self, at: int) -> bool:
        return at in self.rerun_at or at in self.frozen

    def _unrepaired(self, at: int) -> Iterator[int]:
        """The direct upstream cycles of what is at `at` that have run and are not chosen."""
        affected = self.situation.affected
        for up in affected.graph.upstreams[at]:
            if not self._is_in(up) and affected.state[up] in HAS_RUN:
                yield up

    @cached_property
    def missing(self) -> list[Missing]:
        """Whose permission lacks for what, by team."""
        if all(content.is_whole for content in self.situation.contents.values()):
            return []
        lacking: dict[str, tuple[set[int], dict[int, None], int]] = {}
        affected, content_ids = self.situation.affected, self.situation.content_ids
        of_each = zip(affected.workflow_id, content_ids, self.situation.verdicts, strict=True)
        counted = Counter(
            (workflow, content)
            for workflow, content, verdict in of_each
            if verdict.refusal is None or verdict.refusal.kind in {"permission", "freeze_mode"}
        )
        for (workflow, content), count in counted.items():
            owners = {node.team: node.team_id for node in self.situation.contents[content].lacking}
            for team, team_id in owners.items():
                ids, workflows, instances = lacking.get(team, (set(), {}, 0))
                workflows[workflow] = None
                lacking[team] = ({*ids, team_id}, workflows, instances + count)
        people = _owners({pk for ids, _workflows, _count in lacking.values() for pk in ids})
        names = affected.workflows
        return [
            Missing(team, sorted(names[pk].name for pk in workflows), people.get(team, []), instances)
            for team, (_ids, workflows, instances) in sorted(lacking.items())
        ]

    @cached_property
    def conflicts(self) -> list[Conflict]:
        """Which cycles other active reruns hold."""
        return self._by_rerun(self.situation.held, self.candidates)

    @cached_property
    def upstream_reruns(self) -> list[Conflict]:
        """Which other active reruns hold what chosen cycles read, and which do; none waits for that."""
        return self._by_rerun(self.situation.awaited, self.chosen)

    def _by_rerun(self, reruns: Mapping[int, int], candidates: Iterable[Candidate]) -> list[Conflict]:
        found: dict[int, list[Candidate]] = {}
        for candidate in candidates if reruns else ():
            if rerun := reruns.get(candidate.cycle_id):
                found.setdefault(rerun, []).append(candidate)
        return [Conflict(self.situation.holders[pk], cycles) for pk, cycles in sorted(found.items())]


def _stood(state: str, instance_id: int | None) -> str:
    return _("%(state)s (instance %(id)s)") % {"state": CycleState(state).label, "id": instance_id}


def _counted(nodes: int) -> str:
    return ngettext("%d node", "%d nodes", nodes) % nodes


def _edited(nodes: int, at: datetime) -> str:
    named = {"nodes": _counted(nodes), "at": date_format(timezone.localtime(at), "Y-m-d H:i:s")}
    return _("%(nodes)s, the workflow or a task of it edited at %(at)s") % named


def _owners(teams: set[int]) -> dict[str, list[str]]:
    """The usernames of the owners of each team, by the team's name."""
    if not teams:
        return {}
    owners = Membership.objects.filter(team__in=teams, role=Role.OWNER, user__is_active=True)
    found: dict[str, list[str]] = {}
    for team, username in owners.order_by("user__username").values_list("team__name", "user__username"):
        found.setdefault(team, []).append(username)
    return found


# No nodes are read as NULL: parsing [] for each of very many would take longer than all the rest.
_SELECTED = """
SELECT cycle_id, nullif(nodes, '[]')::text, original_id, seen_state, name, node_total
FROM reruns_rerunitem WHERE rerun_id = %s ORDER BY is_source DESC, id
"""


def selection_of(rerun: Rerun) -> dict[int, Selected]:
    """What is stored as chosen, by cycle id, the source first."""
    with connection.cursor() as cursor:
        cursor.execute(_SELECTED, [rerun.pk])
        return {
            cycle: Selected(tuple(json.loads(nodes)) if nodes else (), *seen)
            for cycle, nodes, *seen in cursor.fetchall()
        }


@transaction.atomic
def plan_of(rerun: Rerun, *, user: Any = None, now: datetime | None = None) -> Plan:
    """What a saved draft would do as things stand now, and all that could be chosen beside.

    `user` is whose permission counts; without one (the shell) nobody's is asked. Raises RerunRefused when the
    cycle that it begins at is gone.
    """
    with very_many():
        selection = selection_of(rerun)
        return Plan(rerun, situation_of(rerun, next(iter(selection)), user=user, now=now), selection)
