"""How the pages of a draft write lengths of time and the states of what is no row of a table."""

from __future__ import annotations

from datetime import timedelta

from django import template
from django.utils.safestring import SafeString

from scheduling.templatetags import tailrace

register = template.Library()


@register.filter
def seconds(length: float | None) -> str:
    """A number of seconds as a length of time."""
    return tailrace.NOTHING if length is None else tailrace.duration(timedelta(seconds=length))


@register.simple_tag
def chip(identifier: str, word: str) -> SafeString:
    """A state's glyph and its word."""
    return tailrace.chip(identifier, word)
