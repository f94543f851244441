"""What pages show of reruns and of their items, and what their reader may do to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.urls import reverse
from django.utils import timezone

from reruns import record_queries as ask
from reruns.holes import overtaken
from reruns.models import Rerun, RerunItem
from reruns.permissions import may_operate
from reruns.states import ItemState, RerunState
from scheduling import clocks
from scheduling.permissions import User
from scheduling.views.rows import digest_of
from workflows.links import sees
from workflows.models import CycleInstance
from workflows.permissions import RERUN as RERUN_CYCLE
from workflows.states import CycleState

WAITING_TO_RERUN, WAITING_TO_UNFREEZE = "waiting_to_rerun", "waiting_to_unfreeze"
# What an item is shown as when the instance that it speaks of is gone.
_WITHOUT_INSTANCE: Mapping[str, str] = {
    ItemState.RUNNING: CycleState.RUNNING,
    ItemState.SUCCESS: CycleState.SUCCESS,
    ItemState.FAILED: CycleState.FAILED,
    ItemState.TERMINATED: CycleState.TERMINATED,
    ItemState.UNFROZEN: CycleState.NOT_READY,
}


def in_short(name: str) -> str:
    """A stored name without the year, where there is no room for it."""
    workflow, time = clocks.parted(name)
    return f"{workflow} {time[5:]}".rstrip()


@dataclass(frozen=True)
class RerunRow:
    """A rerun with how its items stand, and what this user may do to it now."""

    rerun: Rerun
    counts: ask.Counts
    source: str
    """The address of the instance that it begins at; empty when that is gone or not the reader's to see."""
    may_pause: bool
    may_resume: bool
    may_terminate: bool

    @classmethod
    def of(cls, reruns: Sequence[Rerun], user: User) -> list[RerunRow]:
        """One row a rerun, in three queries however many there are (one of them for the user's roles)."""
        counts = ask.counts_of(reruns)
        sources = ask.visible_sources(reruns, CycleInstance.objects.visible_to(user))
        rows = []
        for each in reruns:
            may = may_operate(user, each)
            rows.append(
                cls(
                    each,
                    counts[each.pk],
                    reverse("cycle-detail", args=[each.source_id]) if each.source_id in sources else "",
                    may_pause=may and each.can_pause,
                    may_resume=may and each.can_resume,
                    may_terminate=may and each.can_terminate,
                )
            )
        return rows

    @property
    def mark(self) -> str:
        return f"rerun-{self.rerun.pk}"

    @property
    def digest(self) -> str:
        it = self.rerun
        may = (self.may_pause, self.may_resume, self.may_terminate)
        counts = sorted(self.counts.by_state.items())
        return digest_of(it.state, it.reason, counts, it.ended_at, self.estimate, self.source, may)

    @property
    def estimate(self) -> datetime | None:
        """When the plan said that it would end, as long as that may still be so."""
        it = self.rerun
        if it.is_finished or it.state == RerunState.FAILED or it.estimated_end is None:
            return None
        return it.estimated_end if it.estimated_end > timezone.now() else None


# --- the items of one ----------------------------------------------------------------------------------


def shown_state(
    item_state: str, *, ended: bool, shown: str, live: str | None, seen: str, generated: bool
) -> str:
    """The state that an item is shown in: while it waits that, else its instance's.

    `ended`: the rerun has, so that `shown`, what it wrote down then, stands. `live` is the instance's state
    (None: it is gone), `seen` the one that the plan showed, `generated` whether the rerun made the instance.
    """
    if item_state == ItemState.WAITING:
        return WAITING_TO_RERUN
    if item_state == ItemState.FROZEN:
        return WAITING_TO_UNFREEZE
    if ended and shown:
        return shown
    if item_state == ItemState.FAILED and not generated:
        return CycleState.FAILED
    return live or _WITHOUT_INSTANCE.get(item_state, seen)


def state_in_words(state: str) -> str:
    """What such a state is called."""
    if state == WAITING_TO_RERUN:
        return str(ItemState.WAITING.label)
    if state == WAITING_TO_UNFREEZE:
        return str(ItemState.FROZEN.label)
    return str(CycleState(state).label) if state in CycleState.values else state


@dataclass(frozen=True)
class ItemRow:
    """An item of a rerun as its record shows it."""

    item: RerunItem
    rerun: Rerun
    instance: CycleInstance | None
    """The one that it generated, before that the one that was chosen; None when it is gone."""
    workflow: Any
    team: str
    seen: bool
    """Whether its reader may open the pages of its team."""
    unmet: Sequence[ask.Unmet] = field(default=())
    unmet_count: int = 0
    overtaken: Sequence[str] = field(default=())
    """Holes that were rerun after this instance began."""
    may_tick: bool = False
    may_repair: bool = False

    @classmethod
    def of(cls, items: Sequence[RerunItem], rerun: Rerun, user: User) -> list[ItemRow]:
        """One row an item, in five queries (six with holes) however many there are, one of them for roles."""
        known = ask.known_of(items)
        unmet = ask.unmet_upstreams(items)
        late = {} if rerun.is_finished else overtaken(items, rerun, known.instances)
        may_operate_it = not rerun.is_finished and may_operate(user, rerun)
        rows = []
        for each in items:
            instance = known.instances.get(each.instance_id or each.original_id)
            upstreams, count = unmet.get(each.pk, ([], 0))
            failed = each.state in {ItemState.FAILED, ItemState.TERMINATED} and not rerun.is_finished
            rows.append(
                cls(
                    each,
                    rerun,
                    instance,
                    known.workflows.get(each.workflow_id),
                    known.teams.get(each.team_id, ""),
                    sees(user, each.team_id),
                    upstreams,
                    count,
                    late.get(each.pk, ()),
                    may_tick=may_operate_it and each.state in {ItemState.WAITING, ItemState.FROZEN},
                    may_repair=failed and instance is not None and user.has_perm(RERUN_CYCLE, instance),
                )
            )
        return rows

    @property
    def mark(self) -> str:
        return f"item-{self.item.pk}"

    @property
    def digest(self) -> str:
        it = self.item
        waits = [(each.pk, each.state) for each in self.unmet]
        times = (it.started_at, it.ended_at)
        may = (self.may_tick, self.may_repair)
        return digest_of(
            it.state,
            self.state,
            self.now,
            self.number,
            times,
            it.reason,
            waits,
            self.unmet_count,
            may,
            it.kept,
            it.holes,
            self.overtaken,
        )

    @property
    def state(self) -> str:
        """The identifier of the state that it is shown in."""
        return shown_state(
            self.item.state,
            ended=self.rerun.is_finished,
            shown=self.item.shown_state,
            live=self.instance.state if self.instance is not None else None,
            seen=self.item.seen_state,
            generated=self.item.instance_id is not None,
        )

    @property
    def now(self) -> str:
        """The state of the instance that was chosen, as long as the item only waits."""
        if self.state in {WAITING_TO_RERUN, WAITING_TO_UNFREEZE}:
            return self.instance.state if self.instance is not None else self.item.seen_state
        return ""

    @property
    def number(self) -> int:
        """The id of the instance: the new one as soon as there is one."""
        return int(self.item.instance_id or self.item.original_id)

    @property
    def name(self) -> str:
        """The workflow."""
        return str(self.workflow.name) if self.workflow is not None else clocks.parted(self.item.name)[0]

    @property
    def cycle(self) -> str:
        """The cycle time."""
        return clocks.minute(self.item.cycle_time)

    @property
    def node_count(self) -> int:
        """How many of its nodes are chosen."""
        return len(self.item.nodes) or self.item.node_total

    @property
    def may_mark(self) -> bool:
        """Whether the instance may be called a success, with which the rerun goes on."""
        it = self.item
        return (
            self.may_repair
            and it.instance_id is not None
            and bool(self.instance and self.instance.can_mark_success)
        )

    @property
    def may_rerun(self) -> bool:
        """Whether its cycle may be rerun by hand."""
        return self.may_repair and bool(self.instance and self.instance.can_rerun)
