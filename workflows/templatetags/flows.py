"""The boxes and arrows of a flow; one tag each, as in scheduling.templatetags.rows, and for the same reason.

A flow has hundreds of either, and every tick in a plan asks for some of them again.
"""

from __future__ import annotations

from functools import cache
from html import escape

from django import template
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from workflows.drawing import DrawnArrow, DrawnBox, Pick

register = template.Library()

_SWAPPED = ' hx-swap-oob="true"'


@register.simple_tag
def flow_arrow(drawn: DrawnArrow, *, oob: bool = False) -> SafeString:
    """An arrow; it takes the place of the one that the page shows when it is `oob`."""
    arrow = drawn.arrow
    return SafeString(
        f'<g class="edge" id="{escape(drawn.mark)}" data-way="{arrow.state}" data-from="{escape(arrow.source)}"'
        f' data-to="{escape(arrow.target)}"{_SWAPPED if oob else ""}><path d="{drawn.path}"/></g>'
    )


@register.simple_tag
def flow_box(drawn: DrawnBox, *, oob: bool = False) -> SafeString:
    """A box, with what ticks it when it has a Pick; as `flow_arrow`."""
    swapped = _SWAPPED if oob else ""
    if drawn.pick is None:
        return SafeString(_plain(drawn, swapped))
    return SafeString(_pickable(drawn, drawn.pick, swapped))


# --- a box that leads somewhere --------------------------------------------------------------------


def _plain(drawn: DrawnBox, swapped: str) -> str:
    box = drawn.box
    leads = f'href="{escape(box.href)}"' if box.href else 'tabindex="0" role="group"'
    panel = f' hx-get="{escape(box.panel)}"' if box.panel else ""
    kinds = f"node{' carried' if box.carried or box.aside else ''}{' group' if drawn.shares else ''}"
    current = ' aria-current="true"' if box.selected else ""
    return (
        f'<a class="{kinds}" {_identity(drawn)} {leads}{panel} aria-label="{escape(drawn.spoken)}"{current}'
        f"{swapped}><title>{escape(drawn.tip)}</title>{_under(drawn)}{_face(drawn, glyph_y=10)}"
        f'{_title(drawn, y=20)}<text class="sub" x="36" y="37">{escape(drawn.sub)}</text>'
        f"{_shares(drawn, y=46, height=5)}</a>"
    )


# --- a box that is ticked --------------------------------------------------------------------------


def _pickable(drawn: DrawnBox, pick: Pick, swapped: str) -> str:
    """The whole of it is ticked when it stands for one, its corner when it stands for several."""
    kinds = (
        f"node pickable{' group' if drawn.shares else ''}{'' if pick.ticked else ' refused'}"
        f"{' fixed' if pick.fixed else ''}"
    )
    disabled = "" if pick.can_change else ' aria-disabled="true"'
    where = f'x="{drawn.place.width - 12}" text-anchor="end"' if pick.count else 'x="36"'
    return (
        f'<g class="{kinds}" {_identity(drawn)}{swapped}>'
        f"<title>{escape(drawn.tip)}</title>{_under(drawn)}\n"
        f'<g class="pick" id="pick-{escape(drawn.box.key)}" role="checkbox" tabindex="0"'
        f' aria-checked="{pick.ticked or "false"}"{disabled} aria-label="{escape(drawn.spoken)}"'
        f' data-pick="{escape(pick.value)}" data-why="{escape(pick.why)}">{_face(drawn, glyph_y=11)}'
        f"{'' if drawn.shares else _title(drawn, y=21)}{_tick(drawn, pick)}"
        f'<text class="sub" x="36" y="38">{escape(drawn.sub)}</text>'
        f'<text class="deed" {where} y="57">{escape(pick.deed)}</text></g>\n'
        f"{_opens(drawn)}{_counts(drawn, pick)}</g>"
    )


def _tick(drawn: DrawnBox, pick: Pick) -> str:
    x = drawn.place.width - 30
    if not pick.ticked:
        path = "M9 2.500a6.500 6.500 0 1 0 .01 0M4.500 13.500l9-9"
        return f'<path class="barred" transform="translate({x} 9)" d="{path}"/>'
    path = {"true": "m4.500 9.500 3 3 6-7", "mixed": "M5 9h8"}.get(pick.ticked, "")
    mark = f'<path class="mark" transform="translate({x} 9)" d="{path}"/>' if path else ""
    return f'<rect class="tick" x="{x}" y="9" width="18" height="18" rx="4"/>{mark}'


def _opens(drawn: DrawnBox) -> str:
    """What unfolds a group: its title, and the bar of its states."""
    if not drawn.shares:
        return ""
    said = escape(_("Unfold %(title)s") % {"title": drawn.box.title})
    return (
        f'<a class="open" href="{escape(drawn.box.href)}" aria-label="{said}">{_title(drawn, y=21)}</a>'
        f"{_shares(drawn, y=62, height=4)}"
    )


def _counts(drawn: DrawnBox, pick: Pick) -> str:
    """The count of what is chosen within, which leads to choosing it."""
    if not pick.count:
        return ""
    said = escape(_("%(count)s of %(title)s: choose") % {"count": pick.count, "title": drawn.box.title})
    href = escape(pick.href)
    return (
        f'<a class="count-of" id="count-{escape(drawn.box.key)}" href="{href}" hx-get="{href}"'
        f' hx-target="#dialog" aria-label="{said}"><text x="36" y="57">{escape(pick.count)}</text></a>'
    )


# --- what all of them have -------------------------------------------------------------------------


def _identity(drawn: DrawnBox) -> str:
    box, place = drawn.box, drawn.place
    ticked = f' data-ticked="{drawn.pick.ticked}"' if drawn.pick else ""
    names = f' data-names="{escape(drawn.names)}"' if drawn.names else ""
    return (
        f'id="{escape(drawn.mark)}" data-state="{box.state}"{ticked} data-title="{escape(box.title)}"{names}'
        f' transform="translate({place.x} {place.y})"'
    )


def _under(drawn: DrawnBox) -> str:
    """The edge of a second box below, of what stands for several."""
    if not drawn.shares:
        return ""
    width, height = drawn.place.width, drawn.place.height
    return f'<path class="under" d="M6 {height}v4h{width}v-{height}h-6"/>'


def _face(drawn: DrawnBox, *, glyph_y: int) -> str:
    return (
        f'<rect class="box" width="{drawn.place.width}" height="{drawn.place.height}" rx="7"/>'
        f'<rect class="stripe" x="7" y="7" width="4" height="{drawn.stripe}" rx="2"/>'
        f'<use class="glyph" href="{_glyph(drawn.box.state, get_script_prefix())}" x="18" y="{glyph_y}"'
        ' width="12" height="12"/>'
    )


@cache
def _glyph(state: str, prefix: str) -> str:
    return f"{escape(static('icons.svg'))}#{escape(state)}"


def _title(drawn: DrawnBox, *, y: int) -> str:
    return f'<text x="36" y="{y}">{escape(drawn.title)}</text>'


def _shares(drawn: DrawnBox, *, y: int, height: int) -> str:
    if not drawn.shares:
        return ""
    parts = "".join(
        f'<rect data-state="{each.state}" x="{each.x}" width="{each.width}" height="{height}"/>'
        for each in drawn.shares
    )
    return f'<g class="shares" transform="translate(18 {y})">{parts}</g>'
