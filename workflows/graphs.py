"""What never changes, kept in the process that asks for it: revisions, their graphs and their nodes."""

from __future__ import annotations

from functools import lru_cache

from scheduling.models import TaskRevision
from workflows.graph import Graph
from workflows.models import WorkflowNode, WorkflowRevision


@lru_cache(256)
def revision_of(revision_id: int) -> WorkflowRevision:
    """A revision of a workflow."""
    return WorkflowRevision.objects.get(pk=revision_id)


@lru_cache(256)
def graph_of(revision_id: int) -> Graph:
    """The DAG of a revision, its nodes known by their ids as text."""
    return revision_of(revision_id).graph


@lru_cache(256)
def nodes_of(revision_id: int) -> dict[int, WorkflowNode]:
    """The nodes of a revision by their ids, in the order of the definition."""
    return {node.pk: node for node in revision_of(revision_id).nodes.all()}


@lru_cache(256)
def keys_of(revision_id: int) -> dict[int, str]:
    """The key of each node of a revision by its id, in the order of the definition."""
    return {pk: node.key for pk, node in nodes_of(revision_id).items()}


def keys_from(key: str, revision_id: int) -> set[str]:
    """The node `key` of a revision and everything after it; nothing when there is no such node."""
    keys = keys_of(revision_id)
    first = next((node for node, each in keys.items() if each == key), None)
    if first is None:
        return set()
    return {key} | {keys[int(node)] for node in graph_of(revision_id).descendants([str(first)])}


@lru_cache(512)
def task_revision_of(revision_id: int) -> TaskRevision:
    """A revision of a task."""
    return TaskRevision.objects.get(pk=revision_id)
