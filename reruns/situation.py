"""How the cycles downstream of a source stand now: what a rerun could do to each, whatever is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Count, Q
from django.utils.translation import gettext as _

from config import clock
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
from workflows.models import CycleDependency, CycleInstance


def asker(by: journal.By) -> Any:
    """The user whose permission is asked for what `by` does; None is the shell or the engine, which may all."""
    return by if isinstance(by, AbstractBaseUser | AnonymousUser) else None


@dataclass(frozen=True, eq=False)
class Verdict:
    """What could be done to an instance, or why nothing can, and what a rerun of it would run.

    It is the same object for all that stand alike.
    """

    action: str
    refusal: Refusal | None
    content: Content


@dataclass
class Situation:
    """What could be done, by `user`, to each of the affected."""

    affected: Affected
    freeze_mode: bool
    as_it_ran: bool
    user: Any
    now: datetime
    contents: Mapping[int, Content]
    held: Mapping[int, int]
    """The reruns that hold cycles, by cycle id."""
    awaited: Mapping[int, int]
    """The reruns that hold what a cycle reads and what is not among the affected, by cycle id."""
    holders: Mapping[int, Holder]

    def __post_init__(self) -> None:
        affected = self.affected
        self.content_ids: Sequence[int] = affected.revision_id
        if not self.as_it_ran:
            self.content_ids = [affected.workflows[workflow].revision_id for workflow in affected.workflow_id]
        kinds = list(zip(affected.online, affected.state, self.content_ids, strict=True))
        by_kind = {kind: self._by_kind(*kind) for kind in set(kinds)}
        self.verdicts = [by_kind[kind] for kind in kinds]
        """One for each of the affected."""
        self._judge_apart()

    def _by_kind(self, online: bool | None, state: str, content_id: int) -> Verdict:
        content = self.contents.get(content_id, NO_CONTENT)
        action = ACTIONS.get(state, "")
        refusal = None
        if online is None:
            refusal = eligibility.NOT_GENERATED
        elif not online:
            refusal = eligibility.NOT_ONLINE
        elif not action:
            refusal = eligibility.state_refusal(state)
        elif lacking := content.refusal(action):
            refusal = lacking
        elif action != Action.RERUN and not self.freeze_mode:
            refusal = eligibility.freeze_mode_refusal(state)
        return Verdict("" if refusal else action, refusal, content)

    def _judge_apart(self) -> None:
        """What stands against single ones, whatever their state is and whoever asks."""
        affected = self.affected
        for at, frozen in affected.frozen.items():
            if affected.online[at]:
                self._refuse(at, eligibility.frozen_refusal(frozen.by, frozen.at, frozen.reason))
        held_by = {pk: holder.refusal() for pk, holder in self.holders.items()}
        for cycle, rerun in self.held.items():
            if affected.online[at := affected.position[cycle]]:
                self._refuse(at, held_by[rerun])
        # A rerun begins only at what got ready of late (B4).
        at = affected.source
        if affected.online[at] and at not in affected.frozen and affected.cycle_id[at] not in self.held:
            zone = affected.zones[affected.revision_id[at]]
            if late := eligibility.ready_time_refusal(affected.ready_at, self.now, zone):
                self._refuse(at, late)

    def _refuse(self, at: int, refusal: Refusal) -> None:
        self.verdicts[at] = Verdict("", refusal, self.verdicts[at].content)


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
    held, outside = _held(rerun, found)
    awaited = _awaited(outside, found)
    return Situation(
        affected=found,
        freeze_mode=rerun.freeze_mode,
        as_it_ran=rerun.as_it_ran,
        user=user,
        now=now or clock.now(),
        contents=contents_for(revisions, user),
        held=held,
        awaited=awaited,
        holders=_holders({*held.values(), *awaited.values()}),
    )


def source_refusal(instance: CycleInstance, situation: Situation) -> Refusal | None:
    """Why a rerun of a source cycle that stands as `situation` says cannot begin at `instance`, or None."""
    source = situation.affected.source
    effective = situation.affected.instance_id[source]
    if effective != instance.pk:
        return eligibility.not_effective_refusal(effective)
    return situation.verdicts[source].refusal


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


def _held(rerun: Rerun, found: Affected) -> tuple[dict[int, int], dict[int, int]]:
    """Which other reruns hold which cycles: those that are affected, and those that are not."""
    held: dict[int, int] = {}
    outside: dict[int, int] = {}
    owned = RerunItem.objects.owned().exclude(rerun=rerun.pk).values_list("cycle_id", "rerun_id")
    for cycle, holder in owned:
        (held if cycle in found.position else outside)[cycle] = holder
    return held, outside


def _awaited(outside: Mapping[int, int], found: Affected) -> dict[int, int]:
    """Which affected cycles wait for one that another rerun holds, and which rerun that is."""
    if not outside:
        return {}
    # From the side that has fewer: another rerun may hold ten thousand cycles, and this one wait for three.
    fewer = {"upstream__in": outside} if len(outside) < len(found.position) else {"cycle__in": found.position}
    waiting = CycleDependency.objects.filter(**fewer).values_list("cycle_id", "upstream_id")
    return {
        cycle: outside[upstream]
        for cycle, upstream in waiting
        if cycle in found.position and upstream in outside
    }


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
