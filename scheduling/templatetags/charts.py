"""The marks of charts and the rows of the tables beside them, a tag for all of a chart.

A chart has a hundred marks of the same shape: as a template, it was most of what the page of a task cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from html import escape
from typing import Any

from django import template
from django.utils.safestring import SafeString

from scheduling import charts
from scheduling.templatetags.tailrace import duration, when
from scheduling.views.task_rows import Recent, ShownRun

register = template.Library()

_SHAPES = {"success": '<circle r="3.5"/>', "failed": '<path d="m-4-4 8 8m0-8-8 8"/>'}
_OTHER_SHAPE = '<rect x="-3.5" y="-3.5" width="7" height="7"/>'
_BEYOND = '<path class="beyond" d="m-4-8 4-5 4 5"/>'


@register.simple_tag
def points(chart: charts.Durations) -> SafeString:
    """The points of a chart of durations, each a link to its run with what it was as its tip."""
    return SafeString("".join(_point(mark) for mark in chart.points))


def _point(mark: charts.Mark) -> str:
    run: Any = mark.run
    shape = _SHAPES.get(mark.state, _OTHER_SHAPE) + (_BEYOND if mark.beyond else "")
    return (
        f'<a href="{escape(run.address)}" tabindex="-1"><title>{escape(run.title)}</title>'
        f'<svg class="point" data-state="{mark.state}" x="{mark.x}" y="{mark.y}" overflow="visible">'
        f'<circle class="hit" r="8"/>{shape}</svg></a>'
    )


@register.simple_tag
def run_rows(runs: Iterable[ShownRun]) -> SafeString:
    """The runs of a task as rows of the table that says what the chart shows."""
    return SafeString(
        "".join(
            f'<tr><th scope="row"><a class="id" href="{run.address}">{run.pk}</a></th>'
            f"<td>{when(run.at)}</td>{ended_as(run)}</tr>"
            for run in runs
        )
    )


def ended_as(run: Any) -> str:
    """The cells of a run's state and of how long it took."""
    took = duration(timedelta(seconds=run.took))
    return f'<td>{escape(run.get_state_display())}</td><td class="num">{escape(took)}</td>'


# --- columns ---------------------------------------------------------------------------------------


def parts(column: charts.Column) -> str:
    """The parts of a column; what failed is hatched, so that it is told without its colour."""
    return "".join(_part(part) for part in column.parts)


def _part(part: charts.Mark) -> str:
    place = f'x="{part.x}" y="{part.y}" width="{part.width}" height="{part.height}"/>'
    hatch = f'<rect class="hatch" {place}' if part.state == "failed" else ""
    return f'<rect data-state="{part.state}" {place}{hatch}'


def hit(column: charts.Column) -> str:
    """What of a column can be pointed at: all of its slot."""
    return f'<rect class="hit" x="{column.x}" width="{column.width}" height="100%"/>'


def tick(column: charts.Column, text: str) -> str:
    """What stands below a column on the axis."""
    return f'<text class="tick" x="{column.middle}" y="100%" dy="18">{text}</text>'


@register.simple_tag
def hours(slots: Iterable[Any]) -> SafeString:
    """The columns of the overview's hours, each a link to its records, with the clock below every third."""
    return SafeString("".join(_hour(number, slot) for number, slot in enumerate(slots)))


def _hour(number: int, slot: Any) -> str:
    column, clock, failed = slot.column, slot.clock, slot.counts["failed"]
    bad = f'<text class="bad" x="{column.middle}" y="{column.top}" dy="-4">{failed}</text>' if failed else ""
    return (
        f'<a href="{escape(slot.address)}" tabindex="-1"><title>{clock}: {escape(slot.in_words)}</title>'
        f"{hit(column)}{parts(column)}{bad}</a>{'' if number % 3 else tick(column, clock)}\n"
    )


@register.simple_tag
def hour_rows(slots: list[Any], good: str, bad: str, other: str) -> SafeString:
    """The hours as rows of a table, latest first; `good`, `bad` and `other` are what its columns are called."""
    return SafeString(
        "".join(
            f'<tr><th scope="row"><a href="{escape(slot.address)}">{when(slot.begins)}</a></th>'
            f"{count_cells(slot.counts, (good, bad, other))}</tr>"
            for slot in reversed(slots)
        )
    )


def count_cells(counts: dict[str, int], labels: tuple[str, str, str]) -> str:
    """The cells of a slot's counts, in the order of the layers of its chart."""
    return "".join(
        f'<td class="num" data-label="{escape(label)}">{count}</td>'
        for label, count in zip(labels, counts.values(), strict=True)
    )


# --- in a row --------------------------------------------------------------------------------------


@register.simple_tag
def recent(shown: Recent) -> SafeString:
    """How recent runs went: a sparkline and two figures."""
    bars = "".join(f'<path data-state="{state}" d="{bars}"/>' for state, bars in shown.bars.items())
    return SafeString(
        '<div class="recent">\n  <svg class="spark" viewBox="0 0 119 25" role="img" '
        f'aria-label="{escape(shown.label)}">{bars}</svg>\n'
        f"  <small>{escape(shown.rate)} · {escape(shown.median)}</small>\n</div>"
    )
