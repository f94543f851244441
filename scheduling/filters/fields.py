"""What the filters of lists take beyond Django's own fields: several words in one box, and moments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

_LARGEST_ID = 2**63 - 1
# So that a pasted column stays a query that PostgreSQL plans well, and an address that servers take.
_MOST_VALUES = 200
_BETWEEN = re.compile(r"[\s,，、]+")


def words_of(values: Iterable[str]) -> list[str]:
    """The words in `values`, which commas or spaces separate, without repeats."""
    return [word for word in dict.fromkeys(_BETWEEN.split(" ".join(values))) if word]


def as_id(word: str) -> int | None:
    """The id that `word` writes, or None."""
    # Python refuses to read a number of thousands of digits.
    if not (word.isascii() and word.isdigit()) or len(word) > len(str(_LARGEST_ID)):
        return None
    return int(word) if int(word) <= _LARGEST_ID else None


def printable(text: str) -> str:
    """`text` without the one character that PostgreSQL takes in no text."""
    return text.replace("\0", "")


class ManyInput(forms.TextInput):
    """One text box for several values; the address may also repeat its name."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> str:
        values = data.getlist(name) if hasattr(data, "getlist") else [data.get(name, "")]
        return ", ".join(words_of(values))


class ManyField(forms.CharField):
    """Several words, separated by commas or spaces; cleans to a list without repeats."""

    widget = ManyInput

    def clean(self, value: Any) -> Any:
        words = words_of([super().clean(value)])
        if len(words) > _MOST_VALUES:
            raise ValidationError(
                _("%(count)d values are too many; give at most %(most)d.")
                % {"count": len(words), "most": _MOST_VALUES}
            )
        return words


class IdsField(ManyField):
    """Several ids; cleans to a list of numbers."""

    def clean(self, value: Any) -> list[int]:
        words = super().clean(value)
        wrong = [word for word in words if as_id(word) is None]
        if wrong:
            raise ValidationError(
                _("Not an ID: %(words)s. IDs are whole numbers.") % {"words": ", ".join(wrong)}
            )
        return [int(word) for word in words]


class MomentField(forms.DateTimeField):
    """A moment: in the viewer's zone, or with an offset of its own as an address may carry it."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"})
    default_error_messages = {
        "invalid": gettext_lazy("Not a moment. Write it as 2026-01-31T14:30, or with an offset: …T14:30+08:00.")
    }

    def prepare_value(self, value: Any) -> Any:
        """As the browser's box for local times writes it."""
        if isinstance(value, str):
            try:
                value = parse_datetime(value.strip()) or value
            except ValueError:
                return value
        if isinstance(value, datetime):
            if timezone.is_aware(value):
                value = timezone.localtime(value)
            return value.strftime("%Y-%m-%dT%H:%M:%S")
        return value


# --- as filters ------------------------------------------------------------------------------------


class ManyFilter(django_filters.Filter):  # type: ignore[misc]
    field_class = ManyField


class IdsFilter(ManyFilter):
    field_class = IdsField


class MomentFilter(django_filters.Filter):  # type: ignore[misc]
    field_class = MomentField


def given(data: QueryDict) -> QueryDict:
    """A copy of `data` without its empty values, as `?state=`: they narrow nothing, and are no choices."""
    kept = data.copy()
    for name, values in data.lists():
        kept.setlist(name, [value for value in values if value])
        if not kept.getlist(name):
            del kept[name]
    return kept
