"""What moves a rerun: each step looks at the state under locks, and may be done again, or by two at once.

The leading scheduler does these. The end of an instance only records the end of its item (`following`): with a
limit on instances at once, an end may set free an item of any workflow, whose locks would then be taken out of
order. Whoever is killed between two steps is made good by the next look.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from django.db import transaction
from django.db.models import Exists, OuterRef

from reruns import notifications, reasons, transitions
from reruns.models import Action, Rerun, RerunItem
from reruns.services import following, generating
from reruns.states import ItemState, RerunState
from scheduling import journal
from scheduling.errors import is_transient
from scheduling.models import JournalEntry
from scheduling.reasons import said
from workflows import services as workflows
from workflows.errors import CycleRefused
from workflows.models import CycleInstance, Workflow
from workflows.transitions import look_again, release_cycles, thaw_of

logger = logging.getLogger(__name__)

# How long one look may go on generating before the scheduler sees to something else.
LOOK_SECONDS = 0.2
AT_ONCE = 200


def advance_due() -> int:
    """Look at the reruns for which something happened; how many."""
    found = list(Rerun.objects.active().filter(due=True).order_by("pk").values_list("pk", flat=True))
    return sum(_looked_at(pk) for pk in found if transitions.answer(pk))


def carry_on() -> int:
    """Look at every rerun that has not ended, a killed process may have left something; how much."""
    return sum(_advanced(pk) for pk in list(Rerun.objects.active().order_by("pk").values_list("pk", flat=True)))


def _looked_at(rerun_id: int) -> int:
    _advanced(rerun_id)
    return 1


def _advanced(rerun_id: int) -> int:
    try:
        return advance(rerun_id)
    except Exception:
        # The others are not to stand still for it; it is looked at again soon.
        logger.exception("Could not advance rerun %s", rerun_id)
        return 0


def advance(rerun_id: int) -> int:
    """Do what may be done now for a rerun: stop what is to be stopped, generate, conclude; how much it was.

    Nothing to do is 0.
    """
    rerun = Rerun.objects.active().filter(pk=rerun_id).first()
    if rerun is None:
        return 0
    # What is being terminated would stop what somebody did by hand meanwhile.
    done = following.take_over(rerun) if rerun.state != RerunState.TERMINATING else 0
    if rerun.state == RerunState.FAILED:
        done += _reopen(rerun)
    match rerun.state:
        case RerunState.RUNNING:
            # What was generated lets the rerun be looked at again: nothing is to be concluded before.
            done += _stop_first(rerun)
            done += _generate(rerun) or _conclude(rerun)
        case RerunState.TERMINATING:
            done += _stop_running(rerun) + _conclude_terminating(rerun)
    return done


# --- running -----------------------------------------------------------------------------------------


def _stop_first(rerun: Rerun) -> int:
    """Stop what has not ended although it is to be rerun."""
    to_stop = RerunItem.objects.waiting().filter(
        rerun=rerun.pk, action=Action.TERMINATE, original__ended_at__isnull=True, original__stopping=""
    )
    ids = list(to_stop.values_list("original_id", flat=True)[:AT_ONCE])
    why = said(reasons.STOPPED_TO_RERUN, batch=rerun.pk)
    return _stop(rerun, ids, by=journal.Actor(rerun.actor, journal.ENGINE.via), reason=why)


def _stop(rerun: Rerun, instance_ids: Iterable[int], *, by: journal.By, reason: str) -> int:
    """Stop these instances, as many as one look has time for; how many."""
    until, stopped = time.monotonic() + LOOK_SECONDS, 0
    for instance in CycleInstance.objects.filter(pk__in=list(instance_ids)).order_by("-cycle_time", "-pk"):
        try:
            workflows.stop(instance, by=by, reason=reason)
            stopped += 1
        except CycleRefused:
            # It ended, or is being stopped, already.
            continue
        if time.monotonic() > until:
            break
    if stopped:
        # There may be more, and what ended on the spot has set something free.
        transitions.call(rerun.pk)
    return stopped


def _generate(rerun: Rerun) -> int:
    """Generate what may follow now, each in a transaction of its own; then let all of it begin."""
    until, done = time.monotonic() + LOOK_SECONDS, 0
    unended = CycleInstance.objects.filter(pk=OuterRef("original_id"), ended_at__isnull=True)
    able = RerunItem.objects.filter(rerun=rerun.pk).generatable().filter(~Exists(unended))
    touched: set[int] = set()
    for item, workflow in list(able.values_list("pk", "workflow_id")[:AT_ONCE]):
        if generating.is_blocked(rerun) or not generating.has_room(rerun):
            break
        if _generated(rerun, item, workflow):
            touched.add(workflow)
            done += 1
        if time.monotonic() > until:
            break
    look_again(touched)
    if done:
        # There may be more, and what cannot be generated has made its end possible.
        transitions.call(rerun.pk)
    return done


def _generated(rerun: Rerun, item_id: int, workflow_id: int) -> bool:
    try:
        return generating.generate(rerun.pk, item_id, workflow_id)
    except Exception as error:
        if is_transient(error):
            # Nobody else will fare better; it is looked at again soon.
            raise
        # Its siblings are not to stand still for it.
        logger.exception("Could not generate item %s of rerun %s", item_id, rerun.pk)
        return False


def _verdict(rerun: Rerun) -> RerunState | None:
    """How a rerun stands that nobody pauses or terminates: a success, a failure, or going on (None)."""
    items = RerunItem.objects.filter(rerun=rerun.pk)
    states = set(items.order_by().values_list("state", flat=True).distinct())
    if ItemState.RUNNING in states:
        return None
    if ItemState.WAITING in states:
        return None if not generating.is_blocked(rerun) and items.generatable().exists() else RerunState.FAILED
    return RerunState.FAILED if states & {ItemState.FAILED, ItemState.TERMINATED} else RerunState.SUCCESS


def _conclude(rerun: Rerun) -> int:
    """End a rerun in which nothing is left to do, or let it have failed; whether it was so."""
    if _verdict(rerun) is None:
        return 0
    with transaction.atomic():
        rerun = _locked(rerun)
        verdict = _verdict(rerun) if rerun.state == RerunState.RUNNING else None
        if verdict is None:
            return 0
        if verdict == RerunState.SUCCESS:
            touched = _end(rerun, verdict, said(reasons.RERUN_SUCCEEDED, batch=rerun.pk))
        else:
            touched = set()
            transitions.fail(rerun)
            journal.record("failed", rerun, journal.ENGINE)
    look_again(touched)
    return 1


def _reopen(rerun: Rerun) -> int:
    """Let a failed rerun go on when what had failed was repaired; whether it was."""
    if _verdict(rerun) == RerunState.FAILED:
        return 0
    with transaction.atomic():
        again = Rerun.objects.locked(rerun.pk)
        if again.state != RerunState.FAILED or _verdict(again) == RerunState.FAILED:
            return 0
        transitions.reopen(again)
        journal.record("resumed", again, journal.ENGINE, reason=said(reasons.REPAIRED))
    rerun.state = again.state
    return 1


# --- terminating -------------------------------------------------------------------------------------


def _stop_running(rerun: Rerun) -> int:
    running = RerunItem.objects.filter(rerun=rerun.pk, state=ItemState.RUNNING)
    unstopped = running.filter(instance__ended_at__isnull=True, instance__stopping="")
    ids = list(unstopped.values_list("instance_id", flat=True)[:AT_ONCE])
    by, reason = _who_terminated(rerun) if ids else (journal.ENGINE, "")
    return _stop(rerun, ids, by=by, reason=reason or said(reasons.RERUN_TERMINATED, batch=rerun.pk))


def _who_terminated(rerun: Rerun) -> tuple[journal.Actor, str]:
    """Who asked for it, and why: the scheduler may come to the stops before whoever that was."""
    asked = JournalEntry.objects.about(rerun).filter(action="terminated").first()
    if asked is None:
        return journal.ENGINE, ""
    return journal.Actor(asked.actor, asked.via, asked.user_id), asked.reason


def _conclude_terminating(rerun: Rerun) -> int:
    """End a rerun that is being terminated when nothing of it runs any more; whether that was so."""
    running = RerunItem.objects.filter(rerun=rerun.pk, state=ItemState.RUNNING)
    if running.exists():
        return 0
    with transaction.atomic():
        rerun = _locked(rerun)
        if rerun.state != RerunState.TERMINATING or running.exists():
            return 0
        touched = _end(rerun, RerunState.TERMINATED, said(reasons.RERUN_TERMINATED, batch=rerun.pk))
    look_again(touched)
    return 1


def let_go(rerun: Rerun, *, by: journal.By, reason: str) -> set[int]:
    """Free all that a locked rerun keeps, whose workflows are locked; returns where something may go on."""
    items = RerunItem.objects.filter(rerun=rerun.pk)
    transitions.cancel(items, reason)
    transitions.unfreeze(items)
    return thaw_of(rerun.holder, by=by, reason=reason) | release_cycles(None, rerun.holder)


def _end(rerun: Rerun, state: RerunState, reason: str) -> set[int]:
    touched = let_go(rerun, by=journal.ENGINE, reason=reason)
    transitions.conclude(rerun, state)
    journal.record("ended", rerun, journal.ENGINE, details={"state": state.value})
    notifications.tell_ended(rerun)
    return touched


def _locked(rerun: Rerun) -> Rerun:
    """The rerun, locked, after the workflows of all its items."""
    workflow_ids = RerunItem.objects.filter(rerun=rerun.pk).order_by().values_list("workflow_id", flat=True)
    Workflow.objects.locked(workflow_ids.distinct())
    found: Rerun = Rerun.objects.locked(rerun.pk)
    return found
