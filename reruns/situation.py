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
        self.actions: list[str] = []
        self.refusals: list[Refusal | None] = []
        self._known: dict[tuple[Any, ...], tuple[str, Refusal | None]] = {}
        for at, row in enumerate(self.affected.rows):
            action, refusal = self._verdict(at, row)
            self.actions.append(action)
            self.refusals.append(refusal)

    def content_id(self, row: Row) -> int:
        """The content that a rerun of this instance runs."""
        return row.revision_id if self.as_it_ran else self.affected.workflows[row.workflow_id].revision_id

    def content(self, at: int) -> Content:
        return self.contents[self.content_id(self.affected.rows[at])]

    def _verdict(self, at: int, row: Row) -> tuple[str, Refusal | None]:
        """What may be done to the cycle at `at`, or why nothing."""
        if row.instance_id is None:
            return "", eligibility.NOT_GENERATED
        if not row.online:
            return "", eligibility.NOT_ONLINE
        if row.cycle_id in self.held:
            return "", self._held_by[self.held[row.cycle_id]]
        if row.frozen_at is not None:
            return "", eligibility.frozen_refusal(row.frozen_by, row.frozen_at, row.frozen_reason)
        if at == self.affected.source and (late := self._ready_time(row)):
            return "", late
        of = (row.state, self.content_id(row))
        if of not in self._known:
            self._known[of] = self._by_state(*of)
        return self._known[of]

    def _by_state(self, state: str, content: int) -> tuple[str, Refusal | None]:
        action = ACTIONS.get(state, "")
        if not action:
            return "", eligibility.state_refusal(state)
        if refusal := self.contents[content].refusal(action):
            return "", refusal
        if action != Action.RERUN and not self.freeze_mode:
            return "", eligibility.freeze_mode_refusal(state)
        return action, None

    def _ready_time(self, row: Row) -> Refusal | None:
        return eligibility.ready_time_refusal(row.ready_at, self.now, self.affected.zones[row.revision_id])

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
