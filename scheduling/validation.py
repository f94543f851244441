"""Validates what a task is made of; the same for `apply`, the admin and the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduling.models import TaskRevision


def clean_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """The whole content of a revision with defaults filled in; raises InvalidDefinition."""
    blank = TaskRevision()
    return {name: content.get(name, getattr(blank, name)) for name in TaskRevision.CONTENT}


def clean_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters given by a person; raises InvalidDefinition."""
    return dict(parameters)
