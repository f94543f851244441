"""One cycle of a plan, as pages and people read it: a mere view, as a plan may have very many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, overload

from reruns.affected import WorkflowRow
from reruns.eligibility import Content, Refusal
from reruns.models import Action
from workflows.states import CycleState

if TYPE_CHECKING:
    from reruns.plans import Plan


class Candidate:
    """One cycle downstream (or the source) with its effective instance, as the plan has it. Only to be read."""

    __slots__ = ("_affected", "_at", "_plan", "_verdict")

    def __init__(self, plan: Plan, at: int) -> None:
        self._plan, self._at = plan, at
        self._affected, self._verdict = plan.situation.affected, plan.situation.verdicts[at]

    def __repr__(self) -> str:
        return f"<{self.name}: {self.action or (self.refusal and self.refusal.kind)}>"

    @property
    def plan(self) -> Plan:
        return self._plan

    @property
    def content(self) -> Content:
        """The nodes of what would run, and which of them the user may rerun."""
        return self._verdict.content

    @property
    def cycle_id(self) -> int:
        return self._affected.cycle_id[self._at]

    @property
    def instance_id(self) -> int:
        return self._affected.instance_id[self._at] or 0

    @property
    def workflow_id(self) -> int:
        return self._affected.workflow_id[self._at]

    @property
    def _workflow(self) -> WorkflowRow:
        return self._affected.workflows[self.workflow_id]

    @property
    def workflow(self) -> str:
        return self._workflow.name

    @property
    def team_id(self) -> int:
        return self._workflow.team_id

    @property
    def team(self) -> str:
        return self._workflow.team

    @property
    def name(self) -> str:
        return self._affected.name(self._at)

    @property
    def stored_name(self) -> str:
        return self._affected.stored_name(self._at)

    @property
    def cycle_time(self) -> datetime:
        return self._affected.moment(self._at)

    @property
    def data_date(self) -> date:
        return date.fromordinal(self._affected.data_date[self._at])

    @property
    def state(self) -> str:
        return self._affected.state[self._at]

    @property
    def state_label(self) -> str:
        return str(CycleState(self.state).label)

    @property
    def is_source(self) -> bool:
        return self._at == self._affected.source

    @property
    def action(self) -> str:
        """What would be done to it; empty when it cannot be chosen."""
        return self._verdict.action

    @property
    def action_label(self) -> str:
        return str(Action(self.action).label) if self.action else ""

    @property
    def refusal(self) -> Refusal | None:
        return self._verdict.refusal

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
        affected = self._affected
        return [affected.cycle_id[at] for at in affected.graph.upstreams[self._at]]

    @property
    def outlook(self) -> str:
        """When it is neither ready nor chosen: it `waits` for the rerun, or runs `as_planned`; else empty."""
        return self._plan.outlooks.get(self._at, "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and (self._plan, self._at) == (other._plan, other._at)

    def __hash__(self) -> int:
        return hash(self._at)


class Candidates(Sequence[Candidate]):
    """Many of them, each made when it is looked at."""

    def __init__(self, plan: Plan, places: Sequence[int]) -> None:
        self._plan, self._places = plan, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Candidate: ...
    @overload
    def __getitem__(self, at: slice) -> Candidates: ...
    def __getitem__(self, at: int | slice) -> Candidate | Candidates:
        found = self._places[at]
        return Candidate(self._plan, found) if isinstance(found, int) else Candidates(self._plan, found)

    def __iter__(self) -> Iterator[Candidate]:
        return (Candidate(self._plan, place) for place in self._places)
