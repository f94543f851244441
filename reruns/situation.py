"""How the cycles downstream of a source stand now: what a rerun could do to each, whatever is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from reruns.affected import Affected
from reruns.eligibility import ACTIONS, NO_CONTENT, Content, Holder, Refusal
from reruns.errors import RerunRefused
from reruns.models import Action, Rerun, RerunItem
from reruns.states import ItemState
from scheduling import journal
from scheduling.models import Task
from scheduling.permissions import RERUN, Rights
from workflows.models import CycleInstance


def asker(by: journal.By) -> Any:
    """The user whose permission is asked for what `by` does; None is the shell or the engine, which may all."""
    return by if isinstance(by, AbstractBaseUser | AnonymousUser) else None


@dataclass
class Situation:
    """What could be done, by `user`, to each of the affected: the lists have an entry for each."""

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
        self.content_at: list[Content] = []
        """What a rerun of each would run."""
        affected = self.affected
        self.content_ids: Sequence[int] = affected.revision_id
        if not self.as_it_ran:
            self.content_ids = [affected.workflows[workflow].revision_id for workflow in affected.workflow_id]
        known: dict[tuple[str, int], tuple[str, Refusal | None]] = {}
        for at, (cycle, instance, online, frozen, state, content) in enumerate(
            zip(
                *(affected.cycle_id, affected.instance_id, affected.online, affected.frozen_at),
                *(affected.state, self.content_ids),
                strict=True,
            )
        ):
            self.content_at.append(self.contents.get(content, NO_CONTENT))
            if instance is None or not online or frozen is not None or cycle in self.held:
                action, refusal = "", self._apart(at)
            elif (state, content) in known:
                action, refusal = known[state, content]
            else:
                action, refusal = known[state, content] = self._by_state(state, content)
            self.actions.append(action)
            self.refusals.append(refusal)
        self._judge_source()

    def content(self, at: int) -> Content:
        return self.content_at[at]

    def _apart(self, at: int) -> Refusal | None:
        """What stands against the cycle at `at` whatever its state is and whoever asks."""
        affected = self.affected
        if affected.instance_id[at] is None:
            return eligibility.NOT_GENERATED
        if not affected.online[at]:
            return eligibility.NOT_ONLINE
        if affected.cycle_id[at] in self.held:
            return self._held_by[self.held[affected.cycle_id[at]]]
        if (moment := affected.frozen_at[at]) is not None:
            return eligibility.frozen_refusal(affected.frozen_by[at], moment, affected.frozen_reason[at])
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
        if self._apart(at) is None:
            zone = self.affected.zones[self.affected.revision_id[at]]
            if refusal := eligibility.ready_time_refusal(self.affected.ready_at, self.now, zone):
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
        revisions = {each for each in set(found.revision_id) if each}
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
    effective = situation.affected.instance_id[source]
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
        done=Count("items", filter=Q(items__state=ItemState.SUCCESS)),
    )
    return {
        each.pk: Holder(
            each.pk,
            each.actor,
            each.submitted_at,
            100 * each.done // each.all if each.all else 0,
            each.state,
        )
        for each in counted
    }
