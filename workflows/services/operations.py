"""What an operator does to one cycle instance: run, rerun, stop, mark, freeze, unfreeze."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal, validation
from scheduling.models import TaskRevision
from workflows import periods, transitions, words
from workflows.errors import CycleRefused
from workflows.graphs import graph_of, keys_of, nodes_of
from workflows.models import CycleInstance, NodeRun, RunType, Workflow, WorkflowNode, WorkflowRevision
from workflows.services import generation
from workflows.states import CycleState, NodeRunState


def stop(
    instance: CycleInstance,
    *,
    discards_earlier: bool | None = None,
    by: journal.By = None,
    reason: str = "",
) -> CycleInstance:
    """Stop an unfinished instance: what has not begun never does, what runs is ended and confirms it.

    An earlier success of the cycle counts again when the stopped run does not succeed; `discards_earlier` says
    that it does not (True) or does (False), None is what it was made with. Raises CycleRefused when it
    has ended or is being stopped already.
    """
    transitions.stop(instance.pk, by=by, reason=reason, discards_earlier=discards_earlier)
    transitions.stop_batches(instance.pk)
    return CycleInstance.objects.select_related("workflow", "revision").get(pk=instance.pk)


def mark_success(instance: CycleInstance, *, by: journal.By = None, reason: str = "") -> CycleInstance:
    """Call an instance that failed or was terminated a success, so that what waits for its cycle goes on."""
    return transitions.mark_success(instance.pk, by=by, reason=reason)


def freeze(
    instance: CycleInstance, *, by: journal.By = None, reason: str = "", holder: str = ""
) -> CycleInstance:
    """Hold back an instance that has not begun, until it is unfrozen (by `holder` alone, if given)."""
    return transitions.freeze(instance.pk, by=by, reason=reason, holder=holder)


def unfreeze(
    instance: CycleInstance, *, by: journal.By = None, reason: str = "", holder: str = ""
) -> CycleInstance:
    """Let a frozen instance go on."""
    return transitions.unfreeze(instance.pk, by=by, reason=reason, holder=holder)


# --- test --------------------------------------------------------------------------------------------


@transaction.atomic
def run_test(
    workflow: Workflow,
    *,
    cycle_time: datetime | None = None,
    parameters: Mapping[str, Any] | None = None,
    by: journal.By = None,
    reason: str = "",
) -> CycleInstance:
    """Run a workflow now as a test, by default for its latest cycle: at once, and nothing waits for it.

    It replaces no result of a cycle, and takes no room from scheduled cycles.
    """
    overrides = validation.clean_parameters(parameters or {})
    workflow = Workflow.objects.locked([workflow.pk])[workflow.pk]
    if workflow.revision is None:
        raise CycleRefused(_("Workflow %(name)s has no content yet; save it first.") % {"name": workflow.name})
    now = clock.now()
    latest = periods.latest_slot(workflow.revision, now) if workflow.revision.cron else None
    [cycle] = generation.make_cycles(workflow, [cycle_time or latest or now])
    return _begin_now(
        workflow, cycle, by, reason, run_type=RunType.TEST, parameters=overrides, waits_for_upstream=False
    )


def _begin_now(workflow: Workflow, cycle: Any, by: journal.By, reason: str, **values: Any) -> CycleInstance:
    """Make an instance of a cycle of a locked workflow that is ready at once; it begins when there is room."""
    now = clock.now()
    [instance] = generation.new_instances(
        workflow, [cycle], by=by, due_at=now, due=True, state=CycleState.READY, ready_at=now, **values
    )
    _announce(instance, by, reason)
    return _begun(workflow, instance)


def _announce(instance: CycleInstance, by: journal.By, reason: str) -> None:
    action = "rerun" if instance.rerun_of_id else "triggered"
    details = {"rerun_of": instance.rerun_of_id} if instance.rerun_of_id else {}
    journal.record(action, instance, by, reason=reason, details={"run_type": instance.run_type} | details)


def _begun(workflow: Workflow, instance: CycleInstance) -> CycleInstance:
    """An instance as it is once what is ready of its workflow has begun, as far as there is room."""
    transitions.begin_ready(workflow)
    return CycleInstance.objects.select_related("workflow", "revision").get(pk=instance.pk)


# --- rerun -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A node that a rerun may run: `chosen` is the proposal, `state` how it ended (empty: it is new)."""

    key: str
    task: str
    state: str
    chosen: bool


def choice_for_rerun(source: CycleInstance, *, as_it_ran: bool = True) -> list[Choice]:
    """The nodes of a rerun of `source` in the order of the definition, with what is proposed to be run.

    Proposed is what failed, was terminated, cancelled or timed out, with all that comes after it and did not
    succeed; of a success, everything.
    """
    return choice_of(source, source.revision if as_it_ran else source.workflow.current)


def choice_of(source: CycleInstance, revision: WorkflowRevision) -> list[Choice]:
    """The same with the nodes of `revision`."""
    states = dict(source.node_runs.values_list("node__key", "state"))
    nodes = WorkflowNode.objects.filter(revision=revision).select_related("task")
    chosen = _proposed(revision.pk, states)
    return [Choice(node.key, node.task.name, states.get(node.key, ""), node.key in chosen) for node in nodes]


def _proposed(revision_id: int, states: Mapping[str, str]) -> set[str]:
    keys = keys_of(revision_id)
    bad = {node for node, key in keys.items() if states.get(key, "") not in _DONE}
    after = graph_of(revision_id).descendants({str(node) for node in bad})
    chosen = {
        key
        for node, key in keys.items()
        if node in bad or (str(node) in after and states.get(key) != NodeRunState.SUCCESS)
    }
    return chosen or set(keys.values())


_DONE = frozenset({NodeRunState.SUCCESS, NodeRunState.CONDITION_NOT_MET})


@dataclass(frozen=True)
class Pinned:
    """The content of a rerun: the revision of the workflow, and the revision id of tasks by task id.

    With *content as it ran*, `tasks` counts only for nodes whose source has no content of its own.
    """

    revision: WorkflowRevision
    tasks: Mapping[int, int]


@transaction.atomic
def rerun(
    source: CycleInstance,
    *,
    nodes: Iterable[str] | None = None,
    as_it_ran: bool = True,
    parameters: Mapping[str, Any] | None = None,
    node_parallelism: int = 0,
    stop_on_failure: bool = False,
    discards_earlier: bool = False,
    holder: str = "",
    by: journal.By = None,
    reason: str = "",
) -> CycleInstance:
    """Run a finished cycle instance again with the chosen nodes (keys); the others are carried as they ended.

    `nodes` left out is what `choice_for_rerun` proposes. `as_it_ran` takes the content that ran then, else
    today's. `parameters` go over those of the definition, for this run alone: those of the source are not
    inherited. The new instance is the cycle's effective one. When it does not succeed, an earlier
    success counts again, unless `discards_earlier`. A held cycle is rerun by its `holder` alone, which
    lifts the hold.
    Raises CycleRefused when the source has not ended, another instance of the cycle is
    unfinished, somebody else holds the cycle, or a node is not known.
    """
    workflow = Workflow.objects.locked([source.workflow_id])[source.workflow_id]
    found = CycleInstance.objects.select_related("revision", "cycle").filter(pk=source.pk).first()
    if found is None:
        raise transitions.gone(source.pk)
    found.workflow = workflow
    instance = rerun_locked(
        found,
        nodes=nodes,
        as_it_ran=as_it_ran,
        parameters=parameters,
        node_parallelism=node_parallelism,
        stop_on_failure=stop_on_failure,
        discards_earlier=discards_earlier,
        holder=holder,
        by=by,
        reason=reason,
    )
    return _begun(workflow, instance)


def rerun_locked(
    source: CycleInstance,
    *,
    nodes: Iterable[str] | None = None,
    as_it_ran: bool = True,
    pinned: Pinned | None = None,
    parameters: Mapping[str, Any] | None = None,
    node_parallelism: int = 0,
    stop_on_failure: bool = False,
    discards_earlier: bool = False,
    holder: str = "",
    by: journal.By = None,
    reason: str = "",
) -> CycleInstance:
    """The same for who has locked the workflow, and read `source` with its revision and cycle after that.

    `pinned` is the content to run instead of today's. The new instance stays ready until its workflow is looked
    at.
    """
    overrides = validation.clean_parameters(parameters or {})
    workflow = source.workflow
    _refuse_rerun(source, holder)
    content = pinned or Pinned(source.revision if as_it_ran else workflow.current, {})
    revision, keys = content.revision, keys_of(content.revision.pk)
    runs = {run.node.key: run for run in source.node_runs.select_related("node", "batch")}
    chosen = _chosen(workflow, nodes, revision.pk, runs)
    fresh = {node: key for node, key in keys.items() if key in chosen}
    now = clock.now()
    [instance] = generation.new_instances(
        workflow,
        [source.cycle],
        run_type=RunType.TEST if source.run_type == RunType.TEST else RunType.RERUN,
        by=by,
        released=bool(holder),
        revision=revision,
        online=source.online,
        parameters=overrides,
        rerun_of=source,
        node_parallelism=node_parallelism,
        stop_on_failure=stop_on_failure,
        discards_earlier=discards_earlier,
        waits_for_upstream=False,
        due_at=now,
        due=True,
        state=CycleState.READY,
        ready_at=now,
    )
    transitions.prepare(
        instance,
        carried={node: runs[key] for node, key in keys.items() if key in runs and key not in chosen},
        pinned=_pinned(content, fresh) | (_as_ran(runs, fresh) if as_it_ran else {}),
    )
    instance.save(update_fields=["total", "succeeded", "failed", "passed_over"])
    _announce(instance, by, reason)
    return instance


def _refuse_rerun(source: CycleInstance, holder: str) -> None:
    if not source.can_rerun:
        raise CycleRefused(
            _("Cycle instance %(id)s has state %(state)s; only one that ended can be rerun.")
            % {"id": source.pk, "state": source.get_state_display()}
        )
    if source.run_type == RunType.TEST:
        return
    if source.cycle.holder not in {"", holder}:
        raise CycleRefused(
            _("The cycle of instance %(id)s is held by %(holder)s, which is about to rerun it.")
            % {"id": source.pk, "holder": words.of_holder(source.cycle.holder)}
        )
    of_cycle = CycleInstance.objects.unfinished().filter(cycle=source.cycle_id)
    other = of_cycle.exclude(run_type=RunType.TEST).first()
    if other is not None:
        raise CycleRefused(
            _("Cycle instance %(other)s of the same cycle is unfinished; rerun the cycle when that has ended.")
            % {"other": other.pk}
        )


def _chosen(
    workflow: Workflow, nodes: Iterable[str] | None, revision_id: int, runs: Mapping[str, NodeRun]
) -> set[str]:
    """The keys to run: those asked for, and whatever the content has that never ran in the source."""
    if nodes is None:
        return _proposed(revision_id, {key: run.state for key, run in runs.items()})
    wanted, known = set(nodes), set(keys_of(revision_id).values())
    unknown = sorted(wanted - known)
    if unknown:
        raise CycleRefused(
            _("Workflow %(name)s has no node %(nodes)s.") % {"name": workflow.name, "nodes": ", ".join(unknown)}
        )
    if not wanted:
        raise CycleRefused(_("No node is chosen; choose at least one to rerun."))
    return wanted | (known - runs.keys())


def _pinned(content: Pinned, chosen: Mapping[int, str]) -> dict[int, int]:
    """The pinned revision of the task of each chosen node, where there is one, by node."""
    nodes = nodes_of(content.revision.pk)
    of_node = {node: content.tasks.get(nodes[node].task_id) for node in chosen}
    return {node: revision for node, revision in of_node.items() if revision is not None}


def _as_ran(runs: Mapping[str, NodeRun], chosen: Mapping[int, str]) -> dict[int, int]:
    """The task content that each chosen node ran, or was to run, in the source, where there is one, by node."""
    revisions = {
        node: batch.revision_id if (batch := runs[key].batch) else runs[key].revision_id
        for node, key in chosen.items()
        if key in runs
    }
    found = {node: revision for node, revision in revisions.items() if revision is not None}
    known = set(TaskRevision.objects.filter(pk__in=found.values()).values_list("pk", flat=True))
    return {node: revision for node, revision in found.items() if revision in known}
