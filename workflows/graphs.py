"""The graphs of revisions, which never change, kept in the process that asks for them."""

from __future__ import annotations

from functools import lru_cache

from workflows.graph import Graph
from workflows.models import WorkflowRevision


@lru_cache(256)
def graph_of(revision_id: int) -> Graph:
    """The DAG of a revision, its nodes known by their ids as text."""
    return WorkflowRevision.objects.get(pk=revision_id).graph


@lru_cache(256)
def keys_of(revision_id: int) -> dict[int, str]:
    """The key of each node of a revision by its id, in the order of the definition."""
    return dict(WorkflowRevision.objects.get(pk=revision_id).nodes.values_list("pk", "key"))
