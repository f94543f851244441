"""Parts of a page that are shown anew, each whole and alone, when what they show differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from scheduling.views.rows import difference, digest_of, shown_by

NOTHING_NEW = 204


@dataclass(frozen=True)
class Section:
    """A part of a page under the id `mark`: what it shows, and what of that counts as a difference."""

    mark: str
    said: Any
    """Everything that makes it look different, by its `repr`; what ticks in the browser is left out."""
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest_of(self.said)


def context_of(sections: Sequence[Section]) -> dict[str, Any]:
    """What all `sections` show, and `shown` for the live view."""
    context: dict[str, Any] = {"shown": shown_by(sections)}
    for section in sections:
        context |= section.context
    return context


def changes(request: HttpRequest, template: str, sections: Sequence[Section], **context: Any) -> HttpResponse:
    """The sections that differ from what the page that asks shows, or 204.

    `template` finds the marks of those to show in `changed`, and in `moved` whether sections came or went.
    """
    found = difference(request, sections)
    if not found:
        return HttpResponse(status=NOTHING_NEW)
    context |= context_of(sections) | {
        "changed": {section.mark for section in found.changed},
        "moved": bool(found.added or found.gone),
        "oob": True,
    }
    return render(request, template, context)
