"""How pages say what is stored in English: reasons, errors, who acted and what was done."""

from __future__ import annotations

from django import template

from scheduling import deeds, reasons

register = template.Library()

register.filter("in_words", reasons.in_words)
register.filter("who", reasons.actor_in_words)
register.filter("deed", deeds.action_in_words)
