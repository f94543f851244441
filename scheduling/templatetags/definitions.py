"""How pages write the values of definitions: as the files do."""

from __future__ import annotations

from typing import Any

from django import template

from scheduling import definitions

register = template.Library()


@register.filter
def written(value: Any) -> str:
    """A value as the file writes it; what the file leaves out is a dash."""
    return definitions.written(value)
