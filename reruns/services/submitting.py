"""Submit: the plan is reckoned once more under locks and confirmed; then the rerun holds its cycles."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from config import clock
from reruns import permissions, transitions
from reruns.content import pins_of
from reruns.errors import Drift, Hole, HolesNotAccepted, PlanDrifted, RerunRefused
from reruns.models import Action, Rerun, RerunItem
from reruns.plans import Plan, plan_of
from reruns.situation import asker
from reruns.states import ItemState
from reruns.transitions import Taken
from scheduling import journal
from scheduling.clocks import by_clock
from workflows.errors import CycleRefused
from workflows.models import Workflow
from workflows.transitions import freeze_for, hold_cycles

NAMED = 3
# The workflows of a draft may change while their locks are waited for; then they are locked anew.
ATTEMPTS = 5


class _EditedMeanwhile(Exception):
    """The draft has cycles of workflows that are not locked."""


def submit(
    rerun: Rerun,
    *,
    confirmed: Collection[Drift] | None = None,
    accepted: Collection[Hole] | None = None,
    by: journal.By = None,
    reason: str = "",
) -> Rerun:
    """Run a draft as it was planned: freeze, hold and mark what it says; the scheduler does the rest.

    `confirmed` is what is known to have changed since the plan was shown (`plan.drift`); PlanDrifted is raised
    until exactly that is confirmed. `accepted` are chosen instances that are known to read results that are
    not rerun (`plan.holes`); HolesNotAccepted is raised until exactly these are accepted. Raises RerunRefused
    when something cannot be done any more: it is not eligible or permitted, or another rerun holds it.
    """
    for _attempt in range(ATTEMPTS):
        try:
            return _submitted(rerun.pk, confirmed or (), accepted or (), by, reason)
        except _EditedMeanwhile:
            continue
        except IntegrityError as error:
            # Seen by the plan in any order of events that we know; the database has the last word.
            if "rerun_owns_cycle_alone" not in str(error):
                raise
            _refuse_impossible(plan_of(rerun, user=asker(by)))
            raise
    raise RerunRefused(_("%(rerun)s is being edited; submit it when that is over.") % {"rerun": rerun})


@transaction.atomic
def _submitted(
    rerun_id: int, confirmed: Collection[Drift], accepted: Collection[Hole], by: journal.By, reason: str
) -> Rerun:
    items = RerunItem.objects.filter(rerun=rerun_id)
    workflow_ids = items.order_by().values_list("workflow_id", flat=True).distinct()
    locked = Workflow.objects.locked(workflow_ids)
    rerun = _locked_draft(rerun_id, by)
    if not locked.keys() >= set(workflow_ids) & set(Workflow.objects.values_list("pk", flat=True)):
        raise _EditedMeanwhile
    user = asker(by)
    plan = plan_of(rerun, user=user, now=clock.now())
    _refuse_impossible(plan)
    if set(plan.drift) != set(confirmed):
        raise _drifted(plan)
    if set(plan.holes) != set(accepted):
        raise _not_accepted(plan.holes)
    taken = list(_taken(plan))
    again = [each.cycle_id for each in taken if each.state == ItemState.WAITING]
    frozen = [each.original_id for each in taken if each.state == ItemState.FROZEN]
    try:
        freeze_for(rerun.holder, frozen, by=by, reason=reason)
        hold_cycles(again, rerun.holder)
    except CycleRefused as error:
        raise RerunRefused(str(error)) from error
    edges = ((cycle, upstream) for cycle, upstreams in plan.dependencies.items() for upstream in upstreams)
    transitions.take_on(rerun, taken, edges)
    transitions.submit(
        rerun, by=by, user=user, reason=reason, estimated_end=plan.summary.ends_at, pinned=_pins(plan)
    )
    details = {
        "instances": len(again),
        "terminated_first": sum(each.action == Action.TERMINATE for each in taken),
        "frozen": len(frozen),
        "confirmed_drift": len(plan.drift),
        "not_rerun_upstream": len(plan.holes),
    }
    journal.record("submitted", rerun, by, reason=reason, details={k: v for k, v in details.items() if v})
    transitions.call(rerun.pk)
    return rerun


def _pins(plan: Plan) -> dict[str, dict[str, int]]:
    """The content that the plan was made with: what is edited from now on is not run by itself."""
    situation, workflow_of = plan.situation, plan.situation.affected.workflow_id
    contents = {workflow_of[at]: situation.content_ids[at] for at in plan.rerun_at}
    used = {situation.content_ids[at] for at in plan.rerun_at}
    nodes = (node for content in used for node in situation.contents[content].nodes)
    tasks = {node.task_id: node.task_revision_id for node in nodes}
    return pins_of({} if plan.rerun.as_it_ran else contents, tasks)


def _locked_draft(rerun_id: int, by: journal.By) -> Rerun:
    found = Rerun.objects.filter(pk=rerun_id).select_for_update(no_key=True).first()
    if found is None:
        raise RerunRefused(_("This draft is gone; somebody discarded it."))
    rerun: Rerun = found
    if not rerun.is_draft:
        raise RerunRefused(
            _("%(rerun)s was submitted by %(who)s already; it has state %(state)s.")
            % {"rerun": rerun, "who": rerun.actor, "state": rerun.get_state_display()}
        )
    permissions.refuse_editing(rerun, by)
    return rerun


def _refuse_impossible(plan: Plan) -> None:
    """Raise RerunRefused, with what it is and why, when something chosen cannot be done any more."""
    if not plan.lost:
        return
    named = list(plan.lost.items())[:NAMED]
    lines = [f"{by_clock(plan.selection[cycle].name)}: {refusal}" for cycle, refusal in named]
    left = len(plan.lost) - len(lines)
    if left:
        lines.append(ngettext("and %(count)d more", "and %(count)d more", left) % {"count": left})
    lines.append(_("Take these out of the plan, or wait; nothing was begun."))
    raise RerunRefused("\n".join(lines))


def _drifted(plan: Plan) -> PlanDrifted:
    count = len(plan.drift)
    text = ngettext(
        "%(count)d chosen instance has changed since the plan was shown. Look at it and confirm.",
        "%(count)d chosen instances have changed since the plan was shown. Look at them and confirm.",
        count,
    )
    return PlanDrifted(text % {"count": count}, plan.drift)


def _not_accepted(holes: Sequence[Hole]) -> HolesNotAccepted:
    if not holes:
        text = _("The plan changed: all upstream instances are rerun now. Look at the plan and submit again.")
        return HolesNotAccepted(text, holes)
    lines = [
        _("%(name)s reads %(upstream)s, which has run and is not rerun.")
        % {"name": each.title, "upstream": each.upstream_title}
        for each in holes[:NAMED]
    ]
    if left := len(holes) - len(lines):
        lines.append(ngettext("and %(count)d more", "and %(count)d more", left) % {"count": left})
    lines.append(_("Choose these upstream instances as well, or accept exactly these; nothing was submitted."))
    return HolesNotAccepted("\n".join(lines), holes)


def _taken(plan: Plan) -> Iterator[Taken]:
    holes: dict[int, list[dict[str, Any]]] = {}
    for hole in plan.holes:
        holes.setdefault(hole.cycle_id, []).append({"cycle": hole.upstream_id, "name": hole.upstream})
    for each in plan.chosen:
        yield Taken(
            cycle_id=each.cycle_id,
            state=ItemState.FROZEN if each.action == Action.FREEZE else ItemState.WAITING,
            action=each.action,
            original_id=each.instance_id,
            seen_state=each.state,
            wave=each.wave,
            starts_at=None if each.starts is None else float(each.starts),
            ends_at=None if each.ends is None else float(each.ends),
            node_total=each.node_total,
            holes=json.dumps(holes.get(each.cycle_id, [])),
        )
