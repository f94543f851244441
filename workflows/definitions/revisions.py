"""The content of workflow revisions as the text that `export` writes, and what differs between two of them."""

from __future__ import annotations

from scheduling.definitions import dump
from scheduling.definitions.revisions import Line, difference
from workflows.definitions.form import content_of, workflow_form
from workflows.models import WorkflowRevision


def content_text(revision: WorkflowRevision) -> str:
    """What `revision` says, as the YAML of one workflow; its name is today's."""
    return dump(workflow_form(name=revision.workflow.name, content=content_of(revision)))


def compare(older: WorkflowRevision, newer: WorkflowRevision) -> list[Line]:
    """What turns `older` into `newer`, with three lines around each change; empty when they say the same."""
    return difference(content_text(older), content_text(newer))
