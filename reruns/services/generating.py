"""One item of a rerun becomes a cycle instance: who may, what of it runs, and what if it cannot."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from reruns import content, notifications, reasons, transitions
from reruns.eligibility import Content
from reruns.models import Action, OnFailure, Rerun, RerunItem
from reruns.situation import contents_for
from reruns.states import ItemState, RerunState
from scheduling import journal
from scheduling.errors import SchedulingError
from scheduling.reasons import said
from workflows import services as workflows
from workflows.graphs import keys_of
from workflows.models import CycleInstance, Workflow, WorkflowRevision
from workflows.services import Pinned
from workflows.states import CycleState


def has_room(rerun: Rerun) -> bool:
    """Whether the limit of a rerun lets one more instance run."""
    running = RerunItem.objects.filter(rerun=rerun.pk, state=ItemState.RUNNING)
    return not rerun.parallelism or running.count() < rerun.parallelism


def is_blocked(rerun: Rerun) -> bool:
    """Whether a failure stands in the way of everything else."""
    bad = RerunItem.objects.filter(rerun=rerun.pk, state__in=[ItemState.FAILED, ItemState.TERMINATED])
    return rerun.on_failure == OnFailure.STOP and bad.exists()


@transaction.atomic
def generate(rerun_id: int, item_id: int, workflow_id: int) -> bool:
    """Generate the instance of an item if that may be now; whether the item changed.

    The instance does not begin here: what ends on the spot would lock further workflows, after the rerun.
    """
    workflow = Workflow.objects.locked([workflow_id]).get(workflow_id)
    rerun = Rerun.objects.locked(rerun_id)
    item = RerunItem.objects.filter(rerun=rerun_id).generatable().filter(pk=item_id).first()
    if item is None or rerun.state != RerunState.RUNNING or not has_room(rerun) or is_blocked(rerun):
        return False
    item.rerun = rerun
    try:
        # Whatever of it was done is undone, but not what is said of it.
        with transaction.atomic():
            transitions.generated(item, _generated(rerun, item, workflow))
    except SchedulingError as error:
        transitions.cannot_be_generated(item, str(error))
        notifications.tell_failed(item)
    return True


class _Refused(SchedulingError):
    """Nobody may, or can, rerun it; the text is stored as it is."""


def _generated(rerun: Rerun, item: RerunItem, workflow: Workflow | None) -> CycleInstance:
    found = _source_of(item)
    if found is None or workflow is None:
        raise _Refused(said(reasons.NOT_GENERATED, error="its record was removed"))
    found.workflow = workflow
    pinned = content.pinned_for(rerun, found)
    keys = _keys(item, found, pinned)
    _refuse_unpermitted(rerun, found, pinned.revision, keys)
    try:
        return workflows.rerun_locked(
            found,
            nodes=keys,
            as_it_ran=rerun.as_it_ran,
            pinned=pinned,
            # Until the rerun ends, its cycles do not fall back to results that it was to replace.
            discards_earlier=True,
            parameters=rerun.parameters,
            node_parallelism=rerun.node_parallelism,
            holder=rerun.holder,
            by=_actor(rerun),
            reason=rerun.reason,
        )
    except SchedulingError as error:
        raise _Refused(said(reasons.NOT_GENERATED, error=error)) from error


def _source_of(item: RerunItem) -> CycleInstance | None:
    """The instance that is rerun: the last run of the item, unless that one was cancelled."""
    instances = CycleInstance.objects.select_related("revision", "cycle")
    last = instances.filter(pk=item.instance_id or item.original_id).exclude(state=CycleState.CANCELLED)
    return last.first() or instances.filter(pk=item.cycle.effective_id).first()


def _actor(rerun: Rerun) -> journal.Actor:
    name = rerun.actor if rerun.responsible is None else rerun.responsible.get_username()
    return journal.Actor(name, journal.ENGINE.via, rerun.responsible_id)


def _keys(item: RerunItem, source: CycleInstance, pinned: Pinned) -> list[str]:
    """The nodes to run: those that were chosen; once more only what did not succeed of them."""
    chosen = item.nodes or list(keys_of(pinned.revision.pk).values())
    if item.instance_id is None:
        return chosen
    proposed = {each.key for each in workflows.choice_of(source, pinned.revision) if each.chosen}
    return [key for key in chosen if key in proposed] or chosen


def _lacking(nodes: Content, source: CycleInstance, keys: list[str]) -> list[str]:
    """The nodes that a rerun of `source` with `keys` runs, and that the user of `nodes` may not rerun."""
    if nodes.is_whole:
        return []
    ran = set(source.node_runs.values_list("node__key", flat=True))
    # What never ran in the source runs too.
    wanted = {*keys, *(key for key in nodes.keys if key not in ran)} & set(nodes.keys)
    return [key for key in nodes.keys if key in wanted - set(nodes.permitted)]


def forbidden_to(user: Any, rerun: Rerun) -> list[str]:
    """What a resumed `rerun` cannot generate for `user`, who may not: instances, each with its nodes."""
    items = RerunItem.objects.filter(rerun=rerun.pk, state__in=content.UNDONE).exclude(action=Action.FREEZE)
    undone = list(items.select_related("cycle").order_by("wave", "cycle_time", "pk"))
    runs = CycleInstance.objects.in_bulk([each.instance_id or each.original_id for each in undone])
    revision_of = {
        each.pk: rerun.pinned["workflows"].get(str(each.workflow_id))
        if not rerun.as_it_ran
        else run.revision_id
        for each in undone
        if (run := runs.get(each.instance_id or each.original_id))
    }
    contents = contents_for({each for each in revision_of.values() if each}, user)
    lacking = {pk for pk, nodes in contents.items() if not nodes.is_whole}
    found = []
    for item in (each for each in undone if revision_of.get(each.pk) in lacking):
        source = _source_of(item)
        if source is None:
            continue
        pinned = content.pinned_for(rerun, source)
        nodes = contents.get(pinned.revision.pk) or contents_for({pinned.revision.pk}, user)[pinned.revision.pk]
        if keys := _lacking(nodes, source, _keys(item, source, pinned)):
            found.append(f"{item.title} ({', '.join(keys)})")
    return found


def _refuse_unpermitted(
    rerun: Rerun, source: CycleInstance, revision: WorkflowRevision, keys: list[str]
) -> None:
    """Whoever is responsible must still be allowed to rerun every task (B5)."""
    if rerun.unasked:
        return
    if rerun.responsible is None:
        raise _Refused(said(reasons.NOBODY_RESPONSIBLE))
    nodes = contents_for({revision.pk}, rerun.responsible)[revision.pk]
    if lacking := _lacking(nodes, source, keys):
        who = rerun.responsible.get_username()
        raise _Refused(said(reasons.NOT_PERMITTED, who=who, nodes=", ".join(lacking)))
