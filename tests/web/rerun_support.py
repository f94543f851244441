"""Reruns in any state for the pages' tests: their rows, without what would have led to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from reruns.models import Action, Rerun, RerunEdge, RerunItem
from scheduling.models import Team
from tests import factories as make
from workflows.models import CycleInstance, Workflow

ENDED = {"success", "terminated"}
FINAL = {"success", "failed", "terminated", "cancelled", "unfrozen"}


def rerun(
    source: CycleInstance,
    items: dict[str, CycleInstance] | None = None,
    *,
    state: str = "running",
    by: Any = None,
    reason: str = "the sensor was wrong",
    **fields: Any,
) -> Rerun:
    """A rerun whose source, and each of `items` (`"name:state"`, a chain of waves), is in a state of its own.

    The source succeeded when there are others, and else is what the rerun is.
    """
    now = timezone.now()
    made = Rerun.objects.create(
        team=source.team,
        source=source,
        name=source.name,
        # Its record takes no items any more once it has ended.
        state="draft" if state == "draft" else "running",
        reason=reason,
        actor=str(by) if by is not None else "mei",
        requested_by=by,
        responsible=by,
        created_at=now - timedelta(minutes=12),
        changed_at=now - timedelta(minutes=1),
        submitted_at=None if state == "draft" else now - timedelta(minutes=10),
        estimated_end=None if state == "draft" else now + timedelta(minutes=20),
        **fields,
    )
    chosen = [("success" if items else "waiting", source), *((items or {}).items())]
    before: RerunItem | None = None
    for wave, (told, instance) in enumerate(chosen, start=1):
        before = item(made, instance, told.rpartition(":")[2], wave=wave, after=before)
    if state not in {"draft", "running"}:
        finish(made, state)
    return made


def item(
    of: Rerun,
    original: CycleInstance,
    state: str,
    *,
    wave: int = 1,
    after: RerunItem | None = None,
    instance: CycleInstance | None = None,
    **fields: Any,
) -> RerunItem:
    """An item of a rerun, with a new instance where it would have one; it waits for `after`."""
    frozen = state in {"frozen", "unfrozen"}
    begun = state in {"running", "success", "failed", "terminated"}
    now = timezone.now()
    if begun and instance is None:
        instance = _run(original.workflow, state)
    values: dict[str, Any] = {
        "rerun": of,
        "cycle": original.cycle,
        "workflow": original.workflow,
        "team": original.team,
        "name": original.stored_name,
        "cycle_time": original.cycle_time,
        "original": original,
        "instance": instance,
        "is_source": original.pk == of.source_id,
        "action": Action.FREEZE if frozen else Action.RERUN,
        "state": "planned" if of.is_draft else state,
        "node_total": 2,
        "seen_state": original.state,
        "wave": wave,
        "starts_at": 60.0 * wave,
        "ends_at": 60.0 * wave + 60.0,
        "started_at": now - timedelta(minutes=10 - wave) if begun else None,
        "ended_at": now - timedelta(minutes=9 - wave) if state in FINAL and not of.is_draft else None,
    }
    made = RerunItem.objects.create(**values | fields)
    if after is not None and not frozen:
        RerunEdge.objects.create(item=made, upstream=after)
    return made


def finish(of: Rerun, state: str) -> None:
    """Bring a running rerun to `state`; what it shows is written down when that is final."""
    way = {"terminated": ["terminating", "terminated"]}.get(state, [state])
    for step in way:
        if step in ENDED:
            for each in of.items.select_related("instance", "original"):
                shown = each.instance or each.original
                RerunItem.objects.filter(pk=each.pk).update(shown_state=shown.state, owned=False)
        ended = timezone.now() if step in ENDED else None
        Rerun.objects.filter(pk=of.pk).update(state=step, ended_at=ended)
    of.refresh_from_db()


def _run(workflow: Workflow, state: str) -> CycleInstance:
    begun = make.cycle(workflow)
    if state == "running":
        return begun
    keys = [node.key for node in begun.revision.nodes.order_by("number")]
    outcome = "success" if state == "success" else "failed"
    for key in keys:
        begun = make.end_node(begun, key, outcome)
        if begun.is_finished:
            break
    return begun


def cycles(team: Team, *names: str) -> list[CycleInstance]:
    """An instance of a workflow of each name that is a finished success, in `team`."""
    group = make.group(team=team)
    return [_run(make.workflow(name, group=group, nodes="a > b"), "success") for name in names]
