"""The rows of cycle instances; one tag each, as in scheduling.templatetags.rows, and for the same reason."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language, pgettext
from django.utils.translation import gettext as _

from scheduling.reasons import actor_in_words
from scheduling.templatetags.tailrace import NOTHING, address, choice, icon, progress, state, took, when
from workflows.states import CycleState
from workflows.views.rows import BackfillRow, CycleRow, Entry

register = template.Library()

# What stands in a row's menu, with the address and the drawing of each.
VERBS = {
    "rerun": ("cycle-rerun", "rerun"),
    "mark-success": ("cycle-mark-success", "success"),
    "freeze": ("cycle-freeze", "frozen"),
    "unfreeze": ("cycle-unfreeze", "run"),
    "stop": ("cycle-stop", "stop"),
}


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.counts = {
            "failed": pgettext("cycle", "%d failed"),
            "condition_not_met": _("%d not run"),
            "running": pgettext("cycle", "%d running"),
            "waiting": _("%d waiting"),
        }
        # Those that a stop ended, and the few that may have failed before it.
        self.of_stopped = self.counts | {"terminated": _("%d unsuccessful")}
        self.of_backfill = self.counts | {
            "terminated": pgettext("cycle", "%d terminated"),
            "cancelled": _("%d cancelled"),
        }
        self.verbs = {
            "rerun": _("Rerun…"),
            "mark-success": _("Mark success…"),
            "freeze": _("Freeze…"),
            "unfreeze": _("Unfreeze…"),
            "stop": _("Stop…"),
        }
        self.open = _("Open")
        self.more = _("Actions on instance %d")
        self.tick = _("Tick instance %d")
        self.frozen = _("frozen")
        self.frozen_by = _("Frozen by %s")
        self.to_rerun = _("waiting to rerun")
        self.kept_by = _("Kept frozen by rerun R-%d")
        self.stopping = _("stopping")
        self.recovered = _("recovered")
        self.why_recovered = _("A later run of its cycle succeeded")
        self.data_of = escape(_("data of"))
        self.started, self.took = escape(_("started")), escape(_("took"))
        self.run = _("run %d")
        self.replaced = pgettext("by a later run", "replaced")
        self.by = pgettext("who began it", "by %s")


@cache
def _words_in(language: str | None) -> Words:
    return Words()


def words() -> Words:
    """The words of the language that is active."""
    return _words_in(get_language())


@register.simple_tag
def cycle_row(row: CycleRow, *, oob: bool = False, plain: bool = False) -> SafeString:
    """The row of a CycleRow; it takes the place of the one that the page shows when it is `oob`.

    It has no box to tick when it is `plain`.
    """
    it, said = row.instance, words()
    name = escape(it.workflow_name)
    swapped = ' hx-swap-oob="true"' if oob else ""
    return SafeString(
        f"""<tr id="{row.mark}"{swapped}>
  <td class="at-tick">{"" if plain else _tick(row, said)}</td>
  <td class="at-id"><a class="id" id="open-{row.mark}" href="{address("cycle-detail", it.pk)}">{it.pk}</a></td>
  <th scope="row" class="name"><a id="workflow-of-{it.pk}" href="{address("workflow-detail", it.workflow_id)}"\
 title="{name}">{name}</a><small>{escape(it.team_name)}</small></th>
  <td class="at-cycle">{when(it.cycle_time)}<small>{said.data_of} {it.data_date:%Y-%m-%d}</small></td>
  <td class="at-run">{run_of(it)}</td>
  <td class="at-state">{state(it)}{cycle_marks(it)}{_replaced(it, said)}</td>
  <td class="at-counters">{node_counters(row)}</td>
  <td class="at-ready">{when(it.ready_at)}</td>
  <td class="at-started" data-label="{said.started}">{when(it.started_at)}</td>
  <td class="at-took num" data-label="{said.took}">{took(it.started_at, it.ended_at)}</td>
  <td class="act">{cycle_menu(row)}</td>
</tr>"""
    )


@register.simple_tag
def node_counters(row: CycleRow) -> SafeString | str:
    """How the nodes of a CycleRow stand, as a bar and in words; nothing before it has begun."""
    it = row.instance
    if not it.total:
        return NOTHING
    waiting = 0 if it.is_finished else max(0, it.total - it.ended_count - row.running)
    stopped = it.state == CycleState.TERMINATED
    counts = {
        "success": it.succeeded,
        "terminated" if stopped else "failed": it.failed,
        "running": row.running,
        "condition_not_met": it.passed_over,
        "waiting": waiting,
    }
    said = words()
    return progress(counts, it.succeeded, it.total, said.of_stopped if stopped else said.counts)


@register.simple_tag
def cycle_marks(instance: Any) -> SafeString | str:
    """The marks beside the state: that it is frozen, by whom and why; that it is being stopped."""
    said, found = words(), ""
    if instance.frozen_at is not None:
        who = said.frozen_by % actor_in_words(instance.frozen_by)
        why = f"{who}: {instance.frozen_reason}" if instance.frozen_reason else who
        link = _rerun_link(instance)
        found += (
            f' <span class="tag frozen">{icon("frozen")}{escape(said.frozen)}</span>'
            f'<small title="{escape(why)}">{link}{escape(why)}</small>'
        )
    elif instance.is_held and (rerun := rerun_of(instance.cycle.holder)):
        where = address("rerun-detail", rerun)
        found += (
            f' <span class="tag">{icon("waiting_to_rerun")}{escape(said.to_rerun)}</span>'
            f'<small><a class="holder" id="holder-of-{instance.pk}" href="{where}">R-{rerun}</a></small>'
        )
    if instance.stopping and not instance.is_finished:
        found += f' <span class="tag">{escape(said.stopping)}</span>'
    return SafeString(found)


def _replaced(instance: Any, said: Words) -> str:
    """The mark of a run after which its cycle was run again, and whether that succeeded."""
    if instance.is_recovered:
        return f' <span class="tag" title="{escape(said.why_recovered)}">{escape(said.recovered)}</span>'
    return f"<small>{escape(said.replaced)}</small>" if instance.is_replaced else ""


def rerun_of(holder: str) -> int:
    """The id of the rerun that `rerun:12` names; 0 when it names none."""
    kind, _colon, pk = holder.partition(":")
    return int(pk) if kind == "rerun" and pk.isdigit() else 0


def _rerun_link(instance: Any) -> str:
    """The rerun that keeps an instance frozen, if one does."""
    rerun = rerun_of(instance.holder)
    if not rerun:
        return ""
    where = address("rerun-detail", rerun)
    return f'<a class="holder" id="holder-of-{instance.pk}" href="{where}">R-{rerun}</a> '


@register.simple_tag
def run_of(instance: Any) -> SafeString:
    """Why an instance exists and which run of its cycle it is, and below who began it."""
    said, who = words(), words().by % actor_in_words(instance.actor)
    number = f' <span class="muted">{escape(said.run % instance.number)}</span>' if instance.number > 1 else ""
    kind = escape(str(choice(instance, "run_type")))
    return SafeString(f'{kind}{number}<small title="{escape(who)}">{escape(who)}</small>')


def _tick(row: CycleRow, said: Words) -> str:
    """The box that ticks an instance for what is done to many, if its user may do anything to it."""
    if not row.may:
        return ""
    pk = row.instance.pk
    return (
        f'<input type="checkbox" class="tick" id="tick-cycle-{pk}" name="cycle" value="{pk}" form="bulk" '
        f'aria-label="{escape(said.tick % pk)}">'
    )


@register.simple_tag
def cycle_menu(row: CycleRow) -> SafeString:
    """The More menu of a CycleRow: what its user may do to it now, and its page."""
    said, pk = words(), row.instance.pk
    more = escape(said.more % pk)
    items = "".join(_item(verb, pk, said) for verb in VERBS if row.allows(verb))
    items += "".join(_entry(entry, pk) for entry in row.entries)
    page = address("cycle-detail", pk)
    # What it keeps frozen it alone unfreezes, so the way to that leads through it.
    if rerun := rerun_of(row.instance.holder):
        where = address("rerun-detail", rerun)
        items += f'<a id="rerun-of-{pk}" href="{where}">{icon("frozen")}{escape(said.kept_by % rerun)}</a>'
    return SafeString(
        f'<button type="button" class="button glyph quiet" id="more-{pk}" popovertarget="menu-{pk}" '
        f'aria-label="{more}" title="{more}">{icon("more")}</button>'
        f'<div class="row-menu" id="menu-{pk}" popover>{items}'
        f'<a id="page-{pk}" href="{page}">{icon("find")}{escape(said.open)}</a></div>'
    )


def _item(verb: str, pk: int, said: Words) -> str:
    name, drawing = VERBS[verb]
    where = address(name, pk)
    look = ' class="danger"' if verb == "stop" else ""
    return (
        f'<a{look} id="{verb}-cycle-{pk}" href="{where}" data-action="{verb}" hx-get="{where}" '
        f'hx-target="#dialog">{icon(drawing)}{escape(said.verbs[verb])}</a>'
    )


def _entry(entry: Entry, pk: int) -> str:
    """What an app above offers; with the reason in its place when that is not possible now."""
    label = escape(entry.label)
    if entry.refusal:
        return f'<p class="not-now" id="{entry.verb}-cycle-{pk}"><b>{label}</b>{escape(entry.refusal)}</p>'
    return (
        f'<a id="{entry.verb}-cycle-{pk}" href="{escape(entry.address)}" data-action="{entry.verb}">'
        f"{icon(entry.drawing)}{label}</a>"
    )


@register.simple_tag
def backfill_counters(row: BackfillRow) -> SafeString:
    """How far a BackfillRow is: its cycles by how they stand, as a bar and in words."""
    counted = dict(row.counts)
    counts = {
        state: counted.pop(state, 0) for state in ("success", "failed", "terminated", "cancelled", "running")
    }
    return progress(
        {**counts, "waiting": sum(counted.values())}, counts["success"], row.total, words().of_backfill
    )
