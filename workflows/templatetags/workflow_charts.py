"""The charts of a workflow: its cycles by day, and the rows of the tables beside its charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling.templatetags.charts import count_cells, ended_as, hit, parts, tick
from scheduling.templatetags.tailrace import when
from workflows.views.rows import ShownCycle

register = template.Library()


@cache
def _counts_in(language: str | None) -> str:
    return _("%(good)s succeeded, %(bad)s failed, %(other)s other")


@register.simple_tag
def cycle_run_rows(cycles: Iterable[ShownCycle]) -> SafeString:
    """The cycles as rows of the table that says what the chart of durations shows."""
    return SafeString(
        "".join(
            f'<tr><th scope="row">{when(cycle.at)}</th>'
            f'<td><a class="id" href="{cycle.address}">{cycle.pk}</a></td>{ended_as(cycle)}</tr>'
            for cycle in cycles
        )
    )


@register.simple_tag
def days_drawn(days: Iterable[Any]) -> SafeString:
    """The columns of the days, with the date below the first of each week."""
    said = _counts_in(get_language())
    return SafeString("".join(_day(number, day, said) for number, day in enumerate(days)))


def _day(number: int, day: Any, said: str) -> str:
    counts = said % dict(zip(("good", "bad", "other"), day.counts.values(), strict=True))
    drawn = f"<g><title>{day.date}: {counts}</title>{hit(day.column)}{parts(day.column)}</g>"
    return drawn if number % 7 else f"{drawn}{tick(day.column, f'{day.date:%m-%d}')}"


@register.simple_tag
def day_rows(days: Sequence[Any], good: str, bad: str, other: str) -> SafeString:
    """The days on which there were cycles as rows of a table, latest first; as `hour_rows`."""
    return SafeString(
        "".join(
            f'<tr><th scope="row">{day.date}</th>{count_cells(day.counts, (good, bad, other))}</tr>'
            for day in reversed(days)
            if day.column.total
        )
    )
