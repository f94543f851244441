"""The rows of the long lists: batches among the records, instances on the page of their batch and of nodes.

A page has fifty or a hundred of them and is asked for every two seconds. As templates with a tag for each cell
they were half of what a list cost; so a row is one tag, and its words are translated once a language.
"""

from __future__ import annotations

from functools import cache
from html import escape

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling.models import Batch
from scheduling.reasons import actor_in_words, in_words
from scheduling.states import InstanceState
from scheduling.templatetags.tailrace import (
    NOTHING,
    actions,
    address,
    choice,
    counters,
    duration,
    icon,
    label,
    state,
    took,
    when,
)
from scheduling.views.node_rows import Executed, NodeRow
from scheduling.views.rows import BatchRow, InstanceRow

register = template.Library()


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.due, self.started, self.took = escape(_("due")), escape(_("started")), escape(_("took"))
        self.shard = escape(_("shard"))
        self.execution = escape(_("ID of the newest execution"))
        self.tick = _("Tick batch %d")
        self.choose = _("Choose instance %(id)s")
        self.copy = _("Copy the ID %d")
        self.rerun = escape(_("rerun"))
        self.held = escape(_("held"))
        self.why_held = escape(_("Waits for an earlier batch of its task"))
        self.recovered = escape(_("recovered"))
        self.why_recovered = escape(_("A later batch of its task succeeded"))
        self.late = _("%s late")


@cache
def _words_in(language: str | None) -> Words:
    return Words()


def head(mark: str, oob: bool) -> str:
    """The beginning of a row; of one that takes the place of another when it is `oob`."""
    return f'<tr id="{mark}" hx-swap-oob="true">' if oob else f'<tr id="{mark}">'


# --- batches ---------------------------------------------------------------------------------------


@register.simple_tag
def batch_row(row: BatchRow, *, oob: bool = False) -> SafeString:
    """The row of a BatchRow; it takes the place of the one that the page shows when it is `oob`."""
    batch, said = row.batch, _words_in(get_language())
    return SafeString(
        f"""{head(row.mark, oob)}
  <td class="at-tick">{_tick(row, said)}</td>
  <td class="at-id">{_id(batch.pk, said)}</td>
  <th scope="row" class="name">{_task(batch)}</th>
  <td class="at-trigger">{_begun_by(batch, said)}</td>
  <td class="at-state">{state(batch)}{_marks(row, said)}{_stopped(batch)}</td>
  <td class="at-counters">{counters(row)}</td>
  <td class="at-due" data-label="{said.due}">{when(batch.scheduled_for)}</td>
  <td class="at-started" data-label="{said.started}">{when(batch.started_at)}{_late(row, said)}</td>
  <td class="at-took num" data-label="{said.took}">{took(batch.started_at, batch.ended_at)}</td>
  <td class="act">{actions(row, icons=True)}</td>
</tr>"""
    )


def _tick(row: BatchRow, said: Words) -> str:
    """The box that ticks a batch for what is done to many, if its user may do anything to it."""
    if not row.may_act:
        return ""
    pk = row.batch.pk
    return (
        f'<input type="checkbox" class="tick" id="tick-batch-{pk}" name="batch" value="{pk}" form="bulk" '
        f'aria-label="{escape(said.tick % pk)}">'
    )


def _id(pk: int, said: Words) -> str:
    """The id as a link to its batch, and a button that copies it."""
    return (
        f'<a class="id" id="open-batch-{pk}" href="{address("batch-detail", pk)}">{pk}</a>'
        f'<button type="button" class="copy" id="copy-{pk}" data-copy="{pk}" '
        f'aria-label="{escape(said.copy % pk)}">{icon("copy")}</button>'
    )


def _task(batch: Batch) -> str:
    """The task of a batch, as a link to its page, and the group, one above the other."""
    name, where = escape(batch.task_name), address("task-detail", batch.task_id)
    return (
        f'<a id="task-of-{batch.pk}" href="{where}" title="{name}">{name}</a>'
        f"<small>{escape(batch.group_name)}</small>"
    )


def _begun_by(batch: Batch, said: Words) -> str:
    """The trigger of a batch and who began it, one above the other."""
    who = escape(actor_in_words(batch.actor))
    again = f' <span class="tag">{said.rerun}</span>' if batch.rerun_of_id else ""
    return f'{escape(choice(batch, "trigger"))}{again}<small title="{who}">{who}</small>'


def _held(said: Words) -> str:
    return f' <span class="tag" title="{said.why_held}">{said.held}</span>'


def _marks(row: BatchRow, said: Words) -> str:
    """The marks beside the state: that it is held; that its task succeeded after it failed."""
    held = _held(said) if row.batch.held else ""
    recovered = (
        f' <span class="tag" title="{said.why_recovered}">{said.recovered}</span>' if row.recovered else ""
    )
    return held + recovered


def _stopped(batch: Batch) -> str:
    """Who or which policy stopped a batch, and why; nothing for a batch that was not stopped."""
    if not batch.stopped:
        return ""
    why = escape(in_words(batch.reason))
    return f'<small class="cut" title="{why}">{why}</small>'


def _late(row: BatchRow, said: Words) -> str:
    """By how much a batch started, or is, later than due; nothing when it is not late."""
    passed = row.late_by
    return f'<small data-tone="late">{escape(said.late % duration(passed))}</small>' if passed else ""


# --- instances -------------------------------------------------------------------------------------


@register.simple_tag
def instance_row(row: InstanceRow, *, oob: bool = False) -> SafeString:
    """The row of an InstanceRow, its node loaded; as `batch_row`."""
    it, said = row.instance, _words_in(get_language())
    parameter = f"<code>{escape(it.shard_parameter)}</code>" if it.shard_parameter else ""
    again = f"<small>{escape(choice(it, 'cause'))}</small>" if it.executions_count > 1 else ""
    return SafeString(
        f"""{head(row.mark, oob)}
  <td class="at-tick">{_choose(row, said)}</td>
  <td><a class="id" href="{address("instance-detail", it.pk)}">{it.pk}</a></td>
  <td class="num" data-label="{said.shard}">{it.number}</td>
  <td class="parameter">{parameter}</td>
  <td>{escape(it.node.name) if it.node else NOTHING}</td>
  <td class="at-state">{state(it)}</td>
  <td class="minor">{when(it.started_at)}</td>
  <td class="num minor">{took(it.started_at, it.ended_at)}</td>
  <td class="num minor">{it.executions_count}{again}{_execution(row, said)}</td>
  <td class="why muted">{escape(in_words(it.reason))}</td>
  <td class="act">{actions(row)}</td>
</tr>"""
    )


def _execution(row: InstanceRow, said: Words) -> str:
    """The id of the newest execution, by which the filter finds it."""
    return f'<small class="id" title="{said.execution}">{row.execution}</small>' if row.execution else ""


def _choose(row: InstanceRow, said: Words) -> str:
    """The box that chooses an instance for what is done to several, if its user may do anything to it."""
    if not (row.may_stop or row.may_rerun):
        return ""
    pk = row.instance.pk
    return (
        f'<input type="checkbox" class="tick" form="several" name="instance" value="{pk}" id="tick-{pk}" '
        f'aria-label="{escape(said.choose % {"id": pk})}">'
    )


def executing(row: NodeRow) -> str:
    """The items of what a node executes."""
    return "".join(_executed(row.mark, each) for each in row.instances)


def _executed(mark: str, it: Executed) -> str:
    word = escape(label(InstanceState, it.state)) if it.state == InstanceState.TERMINATING else ""
    ending = word and f' <span class="tag">{word}</span>'
    return (
        f'<li><a id="{mark}-{it.pk}" href="{address("instance-detail", it.pk)}">{escape(it.task_name)} '
        f'<span class="id">{it.pk}</span></a>{ending} '
        f'<span class="muted">{took(it.started_at, None)}</span></li>'
    )
