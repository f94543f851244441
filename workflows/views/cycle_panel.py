"""What stands beside the flow of a cycle instance: one node, with its runs and the end of its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.urls import reverse

from scheduling import logs
from scheduling.models import Execution
from scheduling.permissions import STOP, User
from scheduling.views import effective
from scheduling.views.sections import Section
from workflows import detail_queries as ask
from workflows import why
from workflows.models import CycleInstance, NodeRun
from workflows.permissions import RERUN

LINES_SHOWN = 12


def panel_sections(
    instance: CycleInstance, runs: Sequence[NodeRun], key: str, typical: Mapping[str, timedelta], user: User
) -> list[Section]:
    """The panel of the node `key` and the end of its log; an empty panel when there is no such node."""
    run = next((each for each in runs if each.node.key == key), None)
    if run is None:
        return [Section("panel", "", {"node_run": None})]
    batch = run.batch
    causes = why.of_node(run, runs, instance, typical)
    execution = ask.newest_execution(batch) if batch is not None else None
    counts = (batch.state, batch.succeeded, batch.ended_count, batch.started_at) if batch else ()
    said = (
        key,
        run.state,
        run.started_at,
        run.ended_at,
        run.carried,
        counts,
        causes,
        execution and execution.pk,
    )
    earlier = ask.runs_of_node(instance, key)
    context = {
        "node_run": run,
        "node_causes": causes,
        "usually": typical.get(key),
        "node_parameters": _parameters(instance, run),
        "effective": effective.of_batch(batch) if batch is not None else None,
        "node_runs": earlier,
        "may_stop_batch": batch is not None and batch.can_stop and user.has_perm(STOP, batch),
        "may_rerun_node": instance.can_rerun and user.has_perm(RERUN, instance),
    }
    told = (said, [(each.pk, each.state) for each in earlier])
    return [Section("panel", told, context), _log(execution)]


def _parameters(instance: CycleInstance, run: NodeRun) -> dict[str, Any]:
    """The parameters as the node's batch has them; of one that has none yet, those that it will be given."""
    if run.batch is not None:
        return run.batch.parameters
    return {**run.node.parameters, **instance.parameters}


def _log(execution: Execution | None) -> Section:
    if execution is None:
        return Section("panel-log", "", {"execution": None})
    window = logs.Index(execution).tail()
    window = replace(window, entries=window.entries[-LINES_SHOWN:])
    page = reverse("instance-detail", args=[execution.instance_id])
    address = f"{page}?execution={execution.number}"
    context = {
        "execution": execution,
        "log_window": window,
        "log_page": f"{address}#log-card",
        "log_address": f"{address}&",
    }
    said = (execution.pk, execution.outcome, window.sequence, window.last_line)
    return Section("panel-log", said, context)
