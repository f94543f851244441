"""The only writer of the states of reruns and of their items: one function a verb.

Rows are locked in one order – batch, running or ended instance, workflows by id, waiting instances, cycles,
rerun, items – and an item changes only while the workflow of its cycle is locked. So the end of an instance,
which holds that lock, records the end of its item without locking the rerun: whoever holds the rerun and wants
that item has waited for the workflow before.

A move is a compare-and-set against the table in states.py. Callers hold the locks and decide; these write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from config import clock
from reruns.errors import RerunRefused
from reruns.models import Rerun, RerunEdge, RerunItem
from reruns.states import ITEM, RERUN, ItemState, RerunState
from scheduling import bulk, journal
from scheduling.services import SCHEDULE_CHANNEL
from scheduling.transitions import execute, notify
from workflows.models import CycleInstance
from workflows.states import CycleState

# --- reruns ------------------------------------------------------------------------------------------


def submit(
    rerun: Rerun,
    *,
    by: journal.By,
    user: Any,
    reason: str,
    estimated_end: datetime,
    pinned: Mapping[str, Mapping[str, int]],
) -> None:
    """A draft becomes what runs; `user` is whose rights count from now on, None being the shell."""
    now = clock.now()
    changed = {"submitted_at": now, "estimated_end": estimated_end, "reason": reason, "pinned": pinned}
    _move(rerun, RerunState.RUNNING, **changed)
    _answer_for(rerun, user, actor=journal.actor(by).name)


def pause(rerun: Rerun) -> None:
    _refuse_unless(rerun, rerun.can_pause, pgettext("it cannot be", "paused"))
    _move(rerun, RerunState.PAUSED)


def resume(rerun: Rerun, *, user: Any) -> None:
    """What was paused or has failed goes on; `user` is whose rights count from now on."""
    _refuse_unless(rerun, rerun.can_resume, pgettext("it cannot be", "resumed"))
    _move(rerun, RerunState.RUNNING)
    _answer_for(rerun, user)


def pin(rerun: Rerun, pinned: Mapping[str, Mapping[str, int]]) -> None:
    """What is generated from now on runs this content."""
    Rerun.objects.filter(pk=rerun.pk).update(pinned=pinned, changed_at=clock.now())
    rerun.pinned = dict(pinned)


def terminate(rerun: Rerun) -> None:
    _refuse_unless(rerun, rerun.can_terminate, pgettext("it cannot be", "terminated"))
    _move(rerun, RerunState.TERMINATING)


def fail(rerun: Rerun) -> None:
    _move(rerun, RerunState.FAILED)


def reopen(rerun: Rerun) -> None:
    """What had failed goes on by itself, as what stood in its way was repaired."""
    _move(rerun, RerunState.RUNNING)


_SHOWN = """
    UPDATE reruns_rerunitem item
    SET owned = false,
        shown_state = coalesce(
            (SELECT state FROM workflows_cycleinstance WHERE id = coalesce(item.instance_id, item.original_id)),
            item.seen_state
        ),
        kept = item.state IN ('failed', 'terminated', 'cancelled') AND EXISTS (
            SELECT FROM workflows_cycle cycle WHERE cycle.id = item.cycle_id AND cycle.succeeded
            AND cycle.effective_id IS DISTINCT FROM coalesce(item.instance_id, item.original_id)
        )
    WHERE rerun_id = %(rerun)s
"""


def conclude(rerun: Rerun, state: RerunState) -> None:
    """End a rerun for good: its record says from now on what it said at this moment."""
    # Before the end: afterwards the database lets nobody change the items.
    execute(_SHOWN, {"rerun": rerun.pk})
    _move(rerun, state, ended_at=clock.now(), due=False)


def _refuse_unless(rerun: Rerun, able: bool, done: str) -> None:
    if not able:
        raise RerunRefused(
            _("%(rerun)s has state %(state)s, from which it cannot be %(action)s.")
            % {"rerun": rerun, "state": rerun.get_state_display(), "action": done}
        )


def _move(rerun: Rerun, state: RerunState, **values: Any) -> None:
    found = Rerun.objects.filter(pk=rerun.pk, state__in=RERUN.sources(state))
    changed = {"state": state, "changed_at": clock.now()} | values
    if not found.update(**changed):
        raise RerunRefused(
            _("%(rerun)s has state %(state)s by now; look at it again.")
            % {"rerun": rerun, "state": rerun.get_state_display()}
        )
    for name, value in changed.items():
        setattr(rerun, name, value)


def _answer_for(rerun: Rerun, user: Any, **values: Any) -> None:
    rerun.responsible_id, rerun.unasked = getattr(user, "pk", None), user is None
    found = Rerun.objects.filter(pk=rerun.pk)
    found.update(responsible=rerun.responsible_id, unasked=rerun.unasked, **values)
    for name, value in values.items():
        setattr(rerun, name, value)


# --- that there may be something to do ----------------------------------------------------------------


def call(rerun_id: int) -> None:
    """Let the scheduler look at a rerun as soon as this transaction is through."""
    if Rerun.objects.active().filter(pk=rerun_id, due=False).update(due=True):
        notify(SCHEDULE_CHANNEL)


def call_later(rerun_id: int) -> None:
    """The same from the end of an instance, which must not lock the rerun: after the commit.

    Whoever is killed in between leaves it to the scheduler, which looks at every active rerun now and then.
    """
    transaction.on_commit(lambda: call(rerun_id), robust=True)


def answer(rerun_id: int) -> bool:
    """Take back that a rerun is due, before it is looked at; False when somebody else did."""
    return bool(Rerun.objects.filter(pk=rerun_id, due=True).update(due=False))


# --- items -------------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """What becomes of a chosen cycle that is submitted, as the plan has it then."""

    cycle_id: int
    state: ItemState
    action: str
    original_id: int
    seen_state: str
    wave: int
    starts_at: float | None
    ends_at: float | None
    node_total: int
    holes: str
    """As JSON; see `RerunItem.holes`."""


_TAKE_ON = """
    UPDATE reruns_rerunitem item
    SET state = taken.state, owned = true, action = taken.action, original_id = taken.original_id,
        seen_state = taken.seen_state, wave = taken.wave, starts_at = taken.starts_at, ends_at = taken.ends_at,
        node_total = taken.node_total, holes = taken.holes
    FROM unnest(%(cycle_id)s::bigint[], %(state)s::text[], %(action)s::text[], %(original_id)s::bigint[],
        %(seen_state)s::text[], %(wave)s::int[], %(starts_at)s::float8[], %(ends_at)s::float8[],
        %(node_total)s::int[], %(holes)s::jsonb[]) AS taken (cycle_id, state, action, original_id, seen_state,
        wave, starts_at, ends_at, node_total, holes)
    WHERE item.rerun_id = %(rerun)s AND item.cycle_id = taken.cycle_id AND item.state = 'planned'
"""


def take_on(rerun: Rerun, taken: Collection[Taken], dependencies: Iterable[tuple[int, int]]) -> None:
    """Let the items of a rerun wait or be frozen. `dependencies` are pairs of cycles: (waits, for)."""
    columns = {name: [getattr(each, name) for each in taken] for name in Taken._fields}
    execute(_TAKE_ON, columns | {"rerun": rerun.pk})
    item_of = dict(RerunItem.objects.filter(rerun=rerun).values_list("cycle_id", "pk"))
    bulk.insert(
        [RerunEdge(item_id=item_of[waits], upstream_id=item_of[upstream]) for waits, upstream in dependencies]
    )


def generated(item: RerunItem, instance: CycleInstance) -> None:
    """Its rerun instance exists."""
    _one(item, ItemState.RUNNING, instance=instance, started_at=clock.now(), reason="")


def taken_over(item: RerunItem, instance: CycleInstance) -> None:
    """Somebody reruns its cycle by hand: that instance takes the place of the one that failed."""
    _one(item, ItemState.RUNNING, instance=instance, started_at=instance.created_at, reason="")


def cannot_be_generated(item: RerunItem, reason: str) -> None:
    _one(item, ItemState.FAILED, reason=reason)


_STATE_OF = {
    CycleState.SUCCESS.value: ItemState.SUCCESS,
    CycleState.FAILED.value: ItemState.FAILED,
    CycleState.TERMINATED.value: ItemState.TERMINATED,
    CycleState.CANCELLED.value: ItemState.TERMINATED,
}


def ended(item: RerunItem, instance: CycleInstance) -> None:
    """The instance of an item has ended."""
    _one(item, _STATE_OF[instance.state], instance=instance, reason=instance.reason)


def failed_again(item: RerunItem, instance: CycleInstance) -> None:
    """The instance that somebody made of a failed item's cycle did not succeed either."""
    RerunItem.objects.filter(pk=item.pk).update(instance=instance, reason=instance.reason)
    item.instance, item.reason = instance, instance.reason


def wait_again(items: Any) -> int:
    """Let failed and terminated ones wait to be rerun once more."""
    return _many(items, ItemState.WAITING, started_at=None, reason="")


def cancel(items: Any, reason: str) -> int:
    """What waits is not rerun any more."""
    return _many(items, ItemState.CANCELLED, owned=False, reason=reason)


def unfreeze(items: Any, reason: str = "") -> int:
    """What was frozen is not any more."""
    return _many(items, ItemState.UNFROZEN, owned=False, reason=reason)


def leave_holes(items: Iterable[RerunItem]) -> None:
    """Write down the `holes` of items that have not ended."""
    RerunItem.objects.bulk_update(list(items), ["holes"])


def bridge(rerun: Rerun, out: set[int]) -> None:
    """Let what waits for items that are taken out (ids) wait for what those wait for."""
    waits_for: dict[int, set[int]] = {item: set() for item in out}
    waited_by: dict[int, set[int]] = {item: set() for item in out}
    edges = RerunEdge.objects.filter(item__rerun=rerun)
    for item, upstream in edges.filter(item__in=out).values_list("item", "upstream"):
        waits_for[item].add(upstream)
        waited_by.setdefault(upstream, set()).add(item)
    for item, upstream in edges.filter(upstream__in=out).values_list("item", "upstream"):
        waits_for.setdefault(item, set()).add(upstream)
        waited_by[upstream].add(item)
    for gone in out:
        for below in waited_by[gone]:
            waits_for[below] |= waits_for[gone]
        for above in waits_for[gone]:
            waited_by[above] |= waited_by[gone]
    pairs = [
        (item, upstream)
        for item, upstreams in sorted(waits_for.items())
        for upstream in sorted(upstreams)
        if item not in out and upstream not in out
    ]
    RerunEdge.objects.bulk_create(
        [RerunEdge(item_id=item, upstream_id=upstream) for item, upstream in pairs],
        ignore_conflicts=True,
        batch_size=5000,
    )


def _one(item: RerunItem, state: ItemState, **values: Any) -> None:
    if not _many(RerunItem.objects.filter(pk=item.pk), state, **values):
        raise RerunRefused(
            _("%(cycle)s has state %(state)s by now; look at it again.")
            % {"cycle": item.title, "state": item.get_state_display()}
        )
    for name, value in _changes(state, values).items():
        setattr(item, name, value)


def _many(items: Any, state: ItemState, **values: Any) -> int:
    return int(items.filter(state__in=ITEM.sources(state)).update(**_changes(state, values)))


def _changes(state: ItemState, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": state, "ended_at": clock.now() if state in ITEM.final else None} | dict(values)
