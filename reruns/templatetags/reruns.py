"""The rows of reruns and of their items; one tag each, as in scheduling.templatetags.rows."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from html import escape
from urllib.parse import quote

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import get_language, ngettext, pgettext
from django.utils.translation import gettext as _

from reruns.eligibility import in_part
from reruns.record_queries import Counts
from reruns.states import ItemState, RerunState
from reruns.views.rows import ItemRow, RerunRow, in_short, state_in_words
from scheduling.clocks import parted
from scheduling.reasons import actor_in_words, in_words
from scheduling.templatetags.tailrace import NOTHING, address, chip, icon, state, took, when

register = template.Library()

VERBS = {
    "pause": ("rerun-pause", "pause"),
    "resume": ("rerun-resume", "run"),
    "terminate": ("rerun-terminate", "stop"),
}


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.succeeded = _("%(done)d of %(total)d rerun")
        # In the order in which they are said; those that stand aside have no part in the bar.
        self.counts = {
            "failed": pgettext("cycle", "%d failed"),
            "terminated": pgettext("cycle", "%d terminated"),
            "running": pgettext("cycle", "%d running"),
            "waiting": _("%d waiting"),
            "cancelled": _("%d not rerun"),
            "frozen": _("%d frozen"),
        }
        self.verbs = {"pause": _("Pause…"), "resume": _("Resume…"), "terminate": _("Terminate…")}
        self.actions = {
            "pause": _("Pause rerun R-%d"),
            "resume": _("Resume rerun R-%d"),
            "terminate": _("Terminate rerun R-%d"),
        }
        self.by = pgettext("who began it", "by %s")
        self.source = escape(pgettext("of a rerun", "source"))
        self.ends, self.later = escape(_("ends about")), escape(_("later than planned"))
        self.took = escape(_("took"))
        self.now = _("now %s")
        self.tick = _("Tick %s")
        self.mark, self.again = _("Mark success…"), _("Rerun by hand…")
        self.mark_of, self.again_of = _("Mark instance %d as a success"), _("Rerun instance %d by hand")
        self.not_rerun = escape(_("not rerun"))
        self.kept = escape(_("earlier result kept"))
        self.nodes_of = escape(_("nodes"))
        self.nodes = _("%(chosen)d of %(total)d")


@cache
def _words_in(language: str | None) -> Words:
    return Words()


def words() -> Words:
    """The words of the language that is active."""
    return _words_in(get_language())


# --- progress ------------------------------------------------------------------------------------------


@register.simple_tag
def rerun_counters(counts: Counts) -> SafeString:
    """How far a rerun is, as a bar and in words that leave out what is none. What is frozen is only said."""
    said = words()
    total, done = counts.total, counts.succeeded
    spoken = [said.succeeded % {"done": done, "total": total}]
    text, bar, at = "", "", 0.0
    if done and total:
        at = 100 * done / total
        bar = f'<rect data-state="success" x="0" width="{at:.2f}" height="6"/>'
    for name, phrase in said.counts.items():
        count = counts.of(name)
        if not count:
            continue
        spoken.append(phrase % count)
        one = escape(phrase % count).replace(" ", "\N{NO-BREAK SPACE}")
        text += f' · <span data-tone="failed">{one}</span>' if name == "failed" else f" · {one}"
        if name not in {"waiting", "frozen"} and total:
            width = min(100 * count / total, 100 - at)
            bar += f'<rect data-state="{name}" x="{at:.2f}" width="{width:.2f}" height="6"/>'
            at += width
    return SafeString(
        '<div class="counters"><svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(", ".join(spoken))}">{bar}</svg>'
        f'<small aria-hidden="true">{done} / {total}{text}</small></div>'
    )


# --- the list ------------------------------------------------------------------------------------------


@register.simple_tag
def rerun_row(row: RerunRow, *, oob: bool = False) -> SafeString:
    """The row of a RerunRow; it takes the place of the one that the page shows when it is `oob`."""
    it, said = row.rerun, words()
    swapped = ' hx-swap-oob="true"' if oob else ""
    workflow, time = map(escape, parted(it.name))
    page, name = address("rerun-detail", it.pk), workflow
    below = f'<span class="time">{time}</span> {escape(it.team.name)}'
    source = f'<a id="source-of-{it.pk}" href="{row.source}">{name}</a>' if row.source else name
    who, why = escape(actor_in_words(it.actor)), escape(in_words(it.reason))
    return SafeString(
        f"""<tr id="{row.mark}"{swapped}>
  <td class="at-id"><a class="id" id="open-{row.mark}" href="{page}">R-{it.pk}</a></td>
  <th scope="row" class="name" title="{escape(it.title)}">{source}<small>{below}</small></th>
  <td class="at-state">{state(it)}</td>
  <td class="at-counters">{rerun_counters(row.counts)}</td>
  <td class="at-why"><span title="{why}">{why}</span><small>{said.by % who}</small></td>
  <td class="at-times">{when(it.submitted_at)}<small>{_ends(row, said)}</small></td>
  <td class="act">{rerun_buttons(row, icons=True)}</td>
</tr>"""
    )


def _ends(row: RerunRow, said: Words) -> SafeString:
    it = row.rerun
    if it.ended_at is not None:
        return SafeString(f"{said.took} {took(it.submitted_at, it.ended_at)}")
    if row.estimate is not None:
        return SafeString(f"{said.ends} {clock(row.estimate)}")
    late = it.state == RerunState.RUNNING and it.estimated_end is not None
    return SafeString(f'<span data-tone="late">{said.later}</span>' if late else "")


@register.simple_tag
def rerun_buttons(row: RerunRow, *, icons: bool = False) -> SafeString:
    """What this user may do to a rerun now; `icons`: without words, as in a row."""
    may = {"pause": row.may_pause, "resume": row.may_resume, "terminate": row.may_terminate}
    return SafeString("".join(_button(row, verb, icons) for verb, is_so in may.items() if is_so))


def _button(row: RerunRow, verb: str, icons: bool) -> str:
    said, (name, drawing) = words(), VERBS[verb]
    where, word = address(name, row.rerun.pk), escape(said.verbs[verb])
    look = ("button danger" if verb == "terminate" else "button") + (" glyph" if icons else "")
    tip = f' title="{word}"' if icons else ""
    return (
        f'<a class="{look}" id="{verb}-{row.mark}" href="{where}" data-action="{verb}" '
        f'aria-label="{escape(said.actions[verb] % row.rerun.pk)}"{tip} hx-get="{where}" hx-target="#dialog">'
        f"{icon(drawing)}{'' if icons else word}</a>"
    )


# --- the items of one ----------------------------------------------------------------------------------


@register.simple_tag
def item_row(row: ItemRow, *, oob: bool = False) -> SafeString:
    """The row of an ItemRow; it takes the place of the one that the page shows when it is `oob`."""
    it, said = row.item, words()
    swapped = ' hx-swap-oob="true"' if oob else ""
    name, this_year = escape(row.name), f"{timezone.now():%Y}-"
    if row.seen and row.workflow is not None:
        name = f'<a id="workflow-of-{it.pk}" href="{address("workflow-detail", it.workflow_id)}">{name}</a>'
    below = escape(row.team) + (f" · {said.source}" if it.is_source else "")
    return SafeString(
        f"""<tr id="{row.mark}"{swapped}>
  <td class="at-tick">{_tick(row, said)}</td>
  <td class="at-wave num">{it.wave or NOTHING}</td>
  <th scope="row" class="name" title="{escape(it.title)}">{name}<small>{below}</small></th>
  <td class="at-cycle" title="{escape(row.cycle)}">{escape(row.cycle.removeprefix(this_year))}</td>
  <td class="at-state">{_state_of(row, said)}</td>
  <td class="at-nodes" data-label="{said.nodes_of}">{_nodes(row, said)}</td>
  <td class="at-id">{_instance(row)}</td>
  <td class="why">{_why(row)}</td>
  <td class="at-took num" data-label="{said.took}">{took(it.started_at, it.ended_at)}</td>
  <td class="act">{_repairs(row, said)}</td>
</tr>"""
    )


def _tick(row: ItemRow, said: Words) -> str:
    """The box that ticks an item which may be taken out."""
    if not row.may_tick:
        return ""
    pk = row.item.pk
    return (
        f'<input type="checkbox" class="tick" id="tick-item-{pk}" name="item" value="{pk}" form="bulk" '
        f'aria-label="{escape(said.tick % row.item.title)}">'
    )


def _state_of(row: ItemRow, said: Words) -> str:
    found = str(chip(row.state, state_in_words(row.state)))
    if row.now:
        now = escape(said.now % state_in_words(row.now).lower())
        found += f"<small>{now}</small>"
    if row.item.state == ItemState.CANCELLED:
        found += f' <span class="tag">{said.not_rerun}</span>'
    if row.item.kept:
        found += f' <span class="tag">{said.kept}</span>'
    if row.instance is not None and row.instance.frozen_at is not None and row.item.instance_id:
        found += f' <span class="tag frozen">{icon("frozen")}{escape(_("frozen"))}</span>'
    return found


def _nodes(row: ItemRow, said: Words) -> str:
    it = row.item
    if row.node_count == it.node_total:
        return str(it.node_total)
    keys = escape(", ".join(it.nodes))
    text = escape(said.nodes % {"chosen": row.node_count, "total": it.node_total})
    return f'<span title="{keys}">{text}</span>'


def _instance(row: ItemRow) -> str:
    number = row.number
    if row.seen and row.instance is not None:
        where = address("cycle-detail", number)
        return f'<a class="id" id="instance-of-{row.item.pk}" href="{where}">{number}</a>'
    return f'<span class="id plain">{number}</span>'


def _why(row: ItemRow) -> str:
    """Why it waits, or did not end well."""
    it = row.item
    if row.unmet:
        names = ", ".join(
            f'<a href="?view=list&amp;name={quote(each.name)}#item-{each.pk}">{escape(in_short(each.name))}</a>'
            for each in row.unmet
        )
        if row.unmet_count > len(row.unmet):
            more = row.unmet_count - len(row.unmet)
            names += " " + escape(ngettext("and %d more", "and %d more", more) % more)
        waits = f'<span class="waits-for">{escape(pgettext("items", "for"))} {names}</span>'
        return waits + _holes(row)
    return escape(in_words(it.reason)) + _holes(row)


def _holes(row: ItemRow) -> str:
    """The results that it reads and that are not rerun."""
    found = ""
    if row.item.holes:
        names = in_part([in_short(hole["name"]) for hole in row.item.holes])
        found += f'<small data-tone="late">{escape(_("reads %s, not rerun") % names)}</small>'
    if row.overtaken:
        names = in_part([in_short(name) for name in row.overtaken])
        text = _("%s was rerun after this instance began; rerun this one too") % names
        found += f'<small data-tone="late">{escape(text)}</small>'
    return found


def _repairs(row: ItemRow, said: Words) -> str:
    found = ""
    if row.may_mark:
        found += _repair(row, "mark-success", "cycle-mark-success", "success", said.mark, said.mark_of)
    if row.may_rerun:
        found += _repair(row, "rerun", "cycle-rerun", "rerun", said.again, said.again_of)
    return found


def _repair(row: ItemRow, verb: str, name: str, drawing: str, word: str, label: str) -> str:
    where = address(name, row.number)
    return (
        f'<a class="button glyph" id="{verb}-{row.mark}" href="{where}" data-action="{verb}" '
        f'title="{escape(word)}" aria-label="{escape(label % row.number)}" hx-get="{where}" '
        f'hx-target="#dialog">{icon(drawing)}</a>'
    )


# --- the record ----------------------------------------------------------------------------------------

# What wants a look first.
_RANKED = (
    *(ItemState.FAILED, ItemState.TERMINATED, ItemState.RUNNING, ItemState.WAITING, ItemState.FROZEN),
    *(ItemState.SUCCESS, ItemState.CANCELLED, ItemState.UNFROZEN),
)
_SHOWN_AS = {ItemState.WAITING.value: "waiting_to_rerun", ItemState.FROZEN.value: "waiting_to_unfreeze"}


@register.filter
def shown_as(item_state: str) -> str:
    """The identifier under which pages show an item's state."""
    return _SHOWN_AS.get(item_state, "success" if item_state == ItemState.UNFROZEN else item_state)


@register.filter
def workflow_of(name: str) -> str:
    """The workflow in a name."""
    return parted(name)[0]


@register.filter
def time_in(name: str) -> str:
    """The cycle time in a name."""
    return parted(name)[1]


@register.filter
def by_state(counts: Counts) -> list[tuple[str, str, int]]:
    """How many items are in each state that there is: identifier, word, count."""
    return [(state.value, str(state.label), counts.of(state)) for state in _RANKED if counts.of(state)]


@register.filter
def clock(moment: datetime) -> SafeString:
    """A moment to the minute, with the day when that is not today: an estimate is no better."""
    local = timezone.localtime(moment)
    same_day = local.date() == timezone.localdate()
    text = f"{local:%H:%M}" if same_day else f"{local:%m-%d %H:%M}"
    return SafeString(f'<time datetime="{local.isoformat()}" title="{local:%Y-%m-%d %H:%M}">{text}</time>')


@register.filter
def left(moment: datetime) -> str:
    """How long until then, in a bracket."""
    seconds = (moment - timezone.now()).total_seconds()
    if seconds < 60:
        return _("(less than a minute left)")
    minutes = round(seconds / 60)
    if minutes < 60:
        return ngettext("(%d min left)", "(%d min left)", minutes) % minutes
    return _("(%(hours)d h %(minutes)02d min left)") % {"hours": minutes // 60, "minutes": minutes % 60}
