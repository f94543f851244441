"""What the filters of records have in common: a window of time, and the address that they are.

An invalid filter shows its mistakes and no rows: read `rows_of`, never `.qs` of an invalid FilterSet, which
django-filter answers with everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, ClassVar

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.filters.fields import ManyFilter, MomentFilter, as_id, given, words_of

WINDOWS = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT_WINDOW = "7d"
RANGE = "range"
TIMES = ("window", "since", "until")
WINDOW_CHOICES = [
    ("1d", gettext_lazy("Last 24 hours")),
    ("7d", gettext_lazy("Last 7 days")),
    ("30d", gettext_lazy("Last 30 days")),
    (RANGE, gettext_lazy("From … to …")),
]
# A page reads a range of an index for each thing that is named.
_MOST_NAMED = 200
# A pasted column of ids is one chip.
_MOST_CHIPS = 6


class RecordForm(forms.Form):
    """Checks what concerns two fields."""

    def clean(self) -> dict[str, Any]:
        """A range of time has an end or a beginning, in that order."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if cleaned.get("window") != RANGE or {"since", "until"} & set(self.errors):
            return cleaned
        if since is None and until is None:
            self.add_error("since", _("Say from when or until when."))
        elif since is not None and until is not None and since >= until:
            self.add_error("until", _("The end is not after the beginning. Swap them, or clear one."))
        return cleaned

    def named(self, field: str, things: Any, unknown: str) -> tuple[dict[int, str], set[int]]:
        """The names by id, and the teams, of the things that the words in `field` name.

        A word is an id, a whole name, or else a part of names. ValidationError when a word names none of
        `things`, with `unknown`, which has a `%(words)s`, or when words are parts of too many names.
        """
        words: list[str] = self.cleaned_data[field]
        if not words:
            return {}, set()
        ids = {word: number for word in words if (number := as_id(word)) is not None}
        rows = set(things.filter(Q(pk__in=ids.values()) | Q(name__in=words)).values_list("pk", "name", "team"))
        given_ids = {str(pk) for pk, _name, _team in rows} & ids.keys()
        given_names = {name for _pk, name, _team in rows} & ids.keys()
        parts = [word for word in words if word not in given_ids | given_names]
        if parts:
            wanted = reduce(or_, (Q(name__icontains=word) for word in parts))
            rows.update(things.filter(wanted).values_list("pk", "name", "team")[: _MOST_NAMED + 1])
            if len(rows) > _MOST_NAMED:
                raise ValidationError(
                    _("More than %(most)d names contain %(words)s. Write more of the name.")
                    % {"most": _MOST_NAMED, "words": ", ".join(parts)}
                )
        names = [name.lower() for _pk, name, _team in rows]
        missing = [word for word in parts if not any(word.lower() in name for name in names)]
        if missing:
            raise ValidationError(unknown % {"words": ", ".join(missing)})
        return {pk: name for pk, name, _team in rows}, {team for _pk, _name, team in rows}


@dataclass(frozen=True)
class Chip:
    """One value that narrows the list, and the query of the address without it."""

    label: str
    value: str
    without: str


class RecordFilter(django_filters.FilterSet):  # type: ignore[misc]
    """A filter of records in a time window; its child says what else narrows it, its rows and their ranges."""

    # What says so on a chip, where the label of the box says more than that.
    CHIP_LABELS: ClassVar[dict[str, Any]] = {}
    # A word in a box that names a thing by its id, by the name of the form's attribute that knows the names.
    NAMES: ClassVar[dict[str, str]] = {}

    window = django_filters.ChoiceFilter(
        label=gettext_lazy("Time"), method="unchanged", empty_label=None, choices=WINDOW_CHOICES
    )
    since = MomentFilter(label=gettext_lazy("From"), method="unchanged")
    until = MomentFilter(label=gettext_lazy("To"), method="unchanged")

    def __init__(self, data: QueryDict, *, user: Any, queryset: Any) -> None:
        data = given(data)
        ranged = any(data.get(name) for name in ("since", "until"))
        data.setdefault("window", RANGE if ranged else DEFAULT_WINDOW)
        super().__init__(data, queryset=queryset)
        self.user = user

    def unchanged(self, queryset: Any, name: str, value: Any) -> Any:
        return queryset

    @property
    def within(self) -> Any:
        """The ranges of an index in which the rows lie, of a list too long to be walked along time."""
        return None

    @property
    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """From when until when the records of a valid filter are (None: no bound)."""
        cleaned = self.form.cleaned_data
        if cleaned["window"] == RANGE:
            return cleaned["since"], cleaned["until"]
        return timezone.now() - WINDOWS[cleaned["window"]], None

    @property
    def narrows(self) -> bool:
        """Whether anything but the window is asked for."""
        return any(self.data.get(name) for name in self.filters if name not in TIMES)

    @property
    def words(self) -> dict[str, list[str]]:
        """What stands in each box that takes several words, as it was given."""
        boxes = (name for name, each in self.filters.items() if isinstance(each, ManyFilter))
        return {name: words_of(self.data.getlist(name)) for name in boxes}

    # --- as an address ---

    @property
    def wider(self) -> str:
        """The query of the address that looks further back."""
        data = self.data.copy()
        data["window"] = "30d"
        return self._query(data)

    @property
    def query(self) -> str:
        """The filter as the query of an address: only what it knows, in one order, without what is usual."""
        return self._query(self.data)

    def fixed(self) -> dict[str, str]:
        """What the address always says."""
        return {}

    def _query(self, data: QueryDict) -> str:
        kept = QueryDict(mutable=True)
        kept.update(self.fixed())
        names = [name for name in self.filters if name not in TIMES]
        for name in (*names, *TIMES):
            many = isinstance(self.filters[name], ManyFilter)
            values = words_of(data.getlist(name)) if many else [value for value in data.getlist(name) if value]
            if values and (name, values) != ("window", [DEFAULT_WINDOW]):
                kept.setlist(name, values)
        if data.get("window") != RANGE:
            for name in ("since", "until"):
                kept.pop(name, None)
        return kept.urlencode(safe=":,")

    def chips(self) -> list[Chip]:
        """Every value that narrows the list, each with the address without it; wrong values too."""
        found: list[Chip] = []
        for name in self.filters:
            if name in TIMES:
                continue
            values = self.words.get(name) or self.data.getlist(name)
            label = str(self.CHIP_LABELS.get(name) or self.filters[name].label)
            if len(values) > _MOST_CHIPS:
                found.append(Chip(label, _("%d values") % len(values), self._with(name, [])))
                continue
            for value in values:
                others = [each for each in values if each != value]
                found.append(Chip(label, self._said(name, value), self._with(name, others)))
        window = self.data["window"]
        if window != DEFAULT_WINDOW:
            data = self.data.copy()
            for name in TIMES:
                data.pop(name, None)
            found.append(Chip(str(self.filters["window"].label), self._said_window(window), self._query(data)))
        return found

    def _with(self, name: str, values: list[str]) -> str:
        data = self.data.copy()
        data.setlist(name, values)
        return self._query(data)

    def _said(self, name: str, value: str) -> str:
        if name in self.NAMES:
            number = as_id(value)
            names: dict[int, str] = getattr(self.form, self.NAMES[name])
            named = names.get(number) if self.is_valid() and number is not None else None
            return f"{named} ({value})" if named and named != value else value
        if isinstance(self.filters[name], MomentFilter):
            moment = self.form.cleaned_data[name] if self.is_valid() else None
            return said_moment(moment) or value
        choices = dict(self.filters[name].extra.get("choices", []))
        return str(choices.get(value, value))

    def _said_window(self, window: str) -> str:
        if window != RANGE:
            return str(dict(self.filters["window"].extra["choices"]).get(window, window))
        since, until = self.data.get("since", ""), self.data.get("until", "")
        if self.is_valid():
            since, until = (said_moment(each) for each in self.bounds)
        return f"{since or '…'} – {until or '…'}"


def said_moment(moment: datetime | None) -> str:
    """A moment on a chip, to the minute."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}" if moment else ""
