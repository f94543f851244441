"""How pages say what is stored in English: reasons, errors, and who acted."""

from __future__ import annotations

from django import template

from scheduling import reasons

register = template.Library()

register.filter("in_words", reasons.in_words)
register.filter("who", reasons.actor_in_words)
