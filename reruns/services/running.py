"""What an operator does to a rerun that was submitted: pause, resume, terminate, take something out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from reruns import content, permissions, reasons, transitions
from reruns.errors import RerunRefused
from reruns.holes import readers_of
from reruns.models import Rerun, RerunItem
from reruns.services import advancing, following
from reruns.situation import asker
from reruns.states import ItemState, RerunState
from scheduling import journal
from scheduling.reasons import said, said_with
from workflows.models import Workflow
from workflows.transitions import hold_cycles, look_again, release_cycles, restore_earlier, thaw_of


@transaction.atomic
def pause(rerun: Rerun, *, by: journal.By = None, reason: str = "") -> Rerun:
    """Generate nothing more until it is resumed; what runs goes on, what is frozen stays.

    Raises RerunRefused when it does not run.
    """
    found = _locked(rerun, by)
    transitions.pause(found)
    journal.record("paused", found, by, reason=reason)
    return found


@transaction.atomic
def resume(rerun: Rerun, *, by: journal.By = None, reason: str = "") -> Rerun:
    """Let a paused or failed rerun go on: what failed or was terminated is rerun, what succeeded never again.

    From then on the rights of `by` count. Raises RerunRefused when it is neither paused nor failed.
    """
    bad = RerunItem.objects.owned().filter(rerun=rerun.pk, state__in=[ItemState.FAILED, ItemState.TERMINATED])
    _lock_workflows(bad)
    found = _locked(rerun, by)
    transitions.resume(found, user=asker(by))
    again = [item for item in bad.select_related("rerun__team", "cycle__effective") if not _overtaken(item)]
    hold_cycles([item.cycle_id for item in again], found.holder)
    transitions.wait_again(RerunItem.objects.filter(pk__in=[item.pk for item in again]))
    journal.record("resumed", found, by, reason=reason, details={"cycles": len(again)} if again else {})
    transitions.call(found.pk)
    return found


def _overtaken(item: RerunItem) -> bool:
    """Whether somebody reran the cycle of a failed item by hand, with what has not failed."""
    return following.overtaken(item) and item.state in {ItemState.RUNNING, ItemState.SUCCESS}


def terminate(rerun: Rerun, *, discard_earlier: bool = False, by: journal.By = None, reason: str = "") -> Rerun:
    """Stop what runs of it, cancel what waits and free what is frozen; it ends when the stops have confirmed.

    Where its run of a cycle did not succeed, an earlier success of the cycle counts again, unless
    `discard_earlier`: then what waits for the cycle waits until a run of it succeeds. Raises RerunRefused when
    it has ended or is being terminated already.
    """
    touched = _terminating(rerun, discard_earlier, by, reason)
    look_again(touched)
    advancing.advance(rerun.pk)
    rerun.refresh_from_db()
    return rerun


@transaction.atomic
def _terminating(rerun: Rerun, discard_earlier: bool, by: journal.By, reason: str) -> set[int]:
    _lock_workflows(RerunItem.objects.filter(rerun=rerun.pk))
    found = _locked(rerun, by)
    transitions.terminate(found)
    details = {"earlier_results": "discarded" if discard_earlier else "kept"}
    journal.record("terminated", found, by, reason=reason, details=details)
    touched = advancing.let_go(found, by=by, reason=said(reasons.RERUN_TERMINATED, batch=found.pk))
    if not discard_earlier:
        begun = RerunItem.objects.filter(rerun=found.pk, instance__isnull=False)
        touched |= restore_earlier(dict(begun.values_list("cycle_id", "original_id")))
    transitions.call(found.pk)
    return touched


@transaction.atomic
def take_content(rerun: Rerun, *, by: journal.By = None, reason: str = "") -> Rerun:
    """Run the current content from now on instead of that of the submit: see `content.edits_of`.

    Instances that were generated keep theirs. Raises RerunRefused when the rerun has ended, runs its content as
    it ran, or chosen nodes are not in the current content.
    """
    undone = RerunItem.objects.filter(rerun=rerun.pk, state__in=content.UNDONE)
    _lock_workflows(undone)
    found = _locked(rerun, by)
    if found.state not in _OPEN or found.as_it_ran:
        raise RerunRefused(
            _("%(rerun)s runs the content as it ran; edits do not affect it.") % {"rerun": found}
            if found.as_it_ran
            else _("%(rerun)s has state %(state)s; it generates no more instances.")
            % {"rerun": found, "state": found.get_state_display()}
        )
    edits = content.edits_of(found)
    transitions.pin(found, content.current_pins(found))
    taken = ", ".join(sorted({each.task or each.workflow for each in edits}))
    journal.record("content_taken", found, by, reason=reason, details={"edited": taken} if taken else {})
    return found


_OPEN = frozenset({RerunState.RUNNING, RerunState.PAUSED, RerunState.FAILED})


def take_out(
    rerun: Rerun, items: Iterable[RerunItem | int], *, by: journal.By = None, reason: str = ""
) -> Rerun:
    """Leave out of a rerun what has not begun: it is not rerun, or not frozen any more.

    What waits for it waits for what it waited for. `items` are items or their ids. Raises RerunRefused, and
    takes nothing out, when one has begun or the rerun is over.
    """
    found, touched = _taken_out(
        rerun, {each if isinstance(each, int) else each.pk for each in items}, by, reason
    )
    look_again(touched)
    return found


@transaction.atomic
def _taken_out(rerun: Rerun, ids: set[int], by: journal.By, reason: str) -> tuple[Rerun, set[int]]:
    items = RerunItem.objects.filter(rerun=rerun.pk, pk__in=ids)
    _lock_workflows(items)
    found = _locked(rerun, by)
    chosen = list(items.order_by("wave", "pk"))
    _refuse_taking_out(found, chosen, ids)
    why = said_with(reasons.TAKEN_OUT, reasons.TAKEN_OUT_WHY, reason, who=journal.actor(by).name)
    waiting = [item for item in chosen if item.state == ItemState.WAITING]
    frozen = [item for item in chosen if item.state == ItemState.FROZEN]
    transitions.bridge(found, {item.pk for item in waiting})
    transitions.leave_holes(_reading(found, waiting))
    transitions.cancel(items, why)
    transitions.unfreeze(items, why)
    touched = release_cycles([item.cycle_id for item in waiting], found.holder)
    thawed = [item.original_id for item in frozen]
    touched |= thaw_of(found.holder, by=by, reason=why, instance_ids=thawed)
    named = {"cycles": ", ".join(item.name for item in chosen[:5]) + (", …" if len(chosen) > 5 else "")}
    journal.record("taken_out", found, by, reason=reason, details=named | {"instances": len(chosen)})
    transitions.call(found.pk)
    return found, touched


def _reading(rerun: Rerun, out: list[RerunItem]) -> list[RerunItem]:
    """The items that stay in `rerun` and read what is taken out, with that among their `holes`."""
    names = {item.cycle_id: item.name for item in out}
    readers = readers_of(rerun, names)
    for item, cycles in readers:
        item.holes = [*item.holes, *({"cycle": cycle, "name": names[cycle]} for cycle in cycles)]
    return [item for item, _cycles in readers]


def _refuse_taking_out(rerun: Rerun, items: list[RerunItem], ids: set[int]) -> None:
    if rerun.state not in _OPEN:
        raise RerunRefused(
            _("%(rerun)s has state %(state)s; nothing can be taken out of it any more.")
            % {"rerun": rerun, "state": rerun.get_state_display()}
        )
    if not ids:
        raise RerunRefused(_("Nothing is chosen; choose what is to be taken out."))
    if len(items) < len(ids):
        raise RerunRefused(_("These are not all instances of %(rerun)s.") % {"rerun": rerun})
    for item in items:
        if item.state not in {ItemState.WAITING, ItemState.FROZEN}:
            raise RerunRefused(
                _("%(cycle)s has state %(state)s; only what has not begun can be taken out.")
                % {"cycle": item.title, "state": item.get_state_display()}
            )


def _lock_workflows(items: Any) -> None:
    Workflow.objects.locked(items.order_by().values_list("workflow_id", flat=True).distinct())


def _locked(rerun: Rerun, by: journal.By) -> Rerun:
    try:
        found: Rerun = Rerun.objects.locked(rerun.pk)
    except Rerun.DoesNotExist:
        raise RerunRefused(_("%(rerun)s is gone; somebody discarded it.") % {"rerun": rerun}) from None
    permissions.refuse_operating(found, by)
    return found
