"""How the cycles downstream of a source stand now: what a rerun could do to each, whatever is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Count, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from reruns import affected as graph
from reruns import eligibility
from reruns.affected import Affected, Row
from reruns.eligibility import ACTIONS, Content, Holder, Refusal
from reruns.errors import RerunRefused
from reruns.models import Action, Rerun, RerunItem
from reruns.states import ITEM
from scheduling import journal
from scheduling.models import Task
from scheduling.permissions import RERUN, Rights
from workflows.models import CycleInstance


def asker(by: journal.By) -> Any:
    """The user whose permission is asked for what `by` does; None is the shell or the engine, which may all."""
    return by if isinstance(by, AbstractBaseUser | AnonymousUser) else None


@dataclass
class Situation:
    """What could be done, by `user`, to each of `affected.rows`: the lists have an entry for each."""

    affected: Affected
    freeze_mode: bool
    as_it_ran: bool
    user: Any
    now: datetime
    contents: Mapping[int, Content]
    held: Mapping[int, int]
    """The reruns that hold cycles, by cycle id."""
    holders: Mapping[int, Holder]

    def __post_init__(self) -> None:
        rows, today = self.affected.rows, self.affected.workflows
        self.actions: list[str] = []
        self.refusals: list[Refusal | None] = []
        known: dict[tuple[str, int], tuple[str, Refusal | None]] = {}
        for row in rows:
            if refusal := self._apart(row):
                self.actions.append("")
                self.refusals.append(refusal)
                continue
            content = row.revision_id if self.as_it_ran else today[row.workflow_id].revision_id
            verdict = known.get((row.state, content))
            if verdict is None:
                verdict = known[row.state, content] = self._by_state(row.state, content)
            self.actions.append(verdict[0])
            self.refusals.append(verdict[1])
        self._judge_source()

    def content_id(self, row: Row) -> int:
        """The content that a rerun of this instance runs."""
        return row.revision_id if self.as_it_ran else self.affected.workflows[row.workflow_id].revision_id

    def content(self, at: int) -> Content:
        return self.contents[self.content_id(self.affected.rows[at])]

    def _apart(self, row: Row) -> Refusal | None:
        """What stands against a cycle whatever its state is and whoever asks."""
        if row.instance_id is None:
            return eligibility.NOT_GENERATED
        if not row.online:
            return eligibility.NOT_ONLINE
        if row.cycle_id in self.held:
            return self._held_by[self.held[row.cycle_id]]
        if row.frozen_at is not None:
            return eligibility.frozen_refusal(row.frozen_by, row.frozen_at, row.frozen_reason)
        return None

    def _by_state(self, state: str, content: int) -> tuple[str, Refusal | None]:
        action = ACTIONS.get(state, "")
        if not action:
            return "", eligibility.state_refusal(state)
        if refusal := self.contents[content].refusal(action):
            return "", refusal
        if action != Action.RERUN and not self.freeze_mode:
            return "", eligibility.freeze_mode_refusal(state)
        return action, None

    def _judge_source(self) -> None:
        """A rerun begins only at what got ready of late (B4)."""
        at = self.affected.source
        row = self.affected.rows[at]
        if self._apart(row) is None:
            zone = self.affected.zones[row.revision_id]
            if refusal := eligibility.ready_time_refusal(row.ready_at, self.now, zone):
                self.actions[at], self.refusals[at] = "", refusal

    @cached_property
    def _held_by(self) -> dict[int, Refusal]:
        return {pk: holder.refusal() for pk, holder in self.holders.items()}


def situation_of(
    rerun: Rerun, cycle_id: int, *, user: Any = None, now: datetime | None = None, alone: bool = False
) -> Situation:
    """How everything downstream of a cycle stands, with the settings of `rerun` (which may be unsaved).

    `user` is whose permission counts; without one nobody's is asked. `alone` is the cycle without what is
    downstream. Raises RerunRefused when the cycle is gone.
    """
    found = graph.load(cycle_id, alone=alone)
    if found is None:
        raise RerunRefused(
            _("The cycle that this rerun begins at is gone; its workflow was deleted. Discard the draft.")
        )
    if rerun.as_it_ran:
        revisions = {row.revision_id for row in found.rows if row.instance_id is not None}
    else:
        revisions = {workflow.revision_id for workflow in found.workflows.values()}
    held = _held(rerun, found)
    return Situation(
        affected=found,
        freeze_mode=rerun.freeze_mode,
        as_it_ran=rerun.as_it_ran,
        user=user,
        now=now or timezone.now(),
        contents=contents_for(revisions, user),
        held=held,
        holders=_holders(set(held.values())),
    )


def source_refusal(instance: CycleInstance, situation: Situation) -> Refusal | None:
    """Why a rerun of a source cycle that stands as `situation` says cannot begin at `instance`, or None."""
    source = situation.affected.source
    effective = situation.affected.rows[source].instance_id
    if effective != instance.pk:
        return eligibility.not_effective_refusal(effective)
    return situation.refusals[source]


def contents_for(revisions: set[int], user: Any) -> dict[int, Content]:
    """The nodes of each revision, and which of them `user` may rerun (None: all)."""
    nodes = graph.nodes_by_content(revisions)
    rights = None if user is None or user.is_superuser else Rights(user)
    allowed: dict[int, bool] = {}
    for node in (each for those in nodes.values() for each in those):
        if node.task_id not in allowed:
            task = Task(pk=node.task_id, team_id=node.team_id)
            allowed[node.task_id] = rights is None or rights.has(RERUN, task)
    return {
        revision: Content(tuple(those), tuple(node.key for node in those if allowed[node.task_id]))
        for revision, those in nodes.items()
    }


def _held(rerun: Rerun, found: Affected) -> dict[int, int]:
    owned = RerunItem.objects.owned().exclude(rerun=rerun.pk).values_list("cycle_id", "rerun_id")
    return {cycle: holder for cycle, holder in owned if cycle in found.position}


def _holders(reruns: set[int]) -> dict[int, Holder]:
    if not reruns:
        return {}
    counted = Rerun.objects.filter(pk__in=reruns).annotate(
        all=Count("items", filter=~Q(items__action=Action.FREEZE)),
        ended=Count("items", filter=~Q(items__action=Action.FREEZE) & Q(items__state__in=ITEM.final)),
    )
    return {
        each.pk: Holder(
            each.pk,
            each.actor,
            each.submitted_at,
            100 * each.ended // each.all if each.all else 0,
            each.state,
        )
        for each in counted
    }
