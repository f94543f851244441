"""Workflows in definition files: the section `workflows` of documents, and what differs between revisions."""

from workflows.definitions.form import WorkflowDefinition, content_of, workflow_form
from workflows.definitions.revisions import compare, content_text
from workflows.definitions.section import WORKFLOWS, check_item, workflow_step

__all__ = [
    "WORKFLOWS",
    "WorkflowDefinition",
    "check_item",
    "compare",
    "content_of",
    "content_text",
    "workflow_form",
    "workflow_step",
]
