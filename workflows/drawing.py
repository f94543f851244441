"""From what a flow is made of to what its template draws.

A page describes its flow by `Box`es and `Arrow`s, whatever they stand for (the nodes of a cycle, workflows that
wait for each other, a plan), and gives `draw(...)` to `workflows/flow.html`. Large flows come folded (see
`folding`). How a box is placed depends on titles and arrows only, so that a flow stays where it is while its
states change, and what is asked for again and again is laid out once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2s
from itertools import accumulate, takewhile
from unicodedata import east_asian_width

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from workflows.folding import FAN, LIMIT, Folded, Group, fold
from workflows.layout import Layout, Node, Place, lay_out

BOX_HEIGHT, GROUP_HEIGHT, PICK_HEIGHT = 48, 60, 70
NARROWEST, WIDEST = 196, 256
# What is beside the text of a box: the stripe and the glyph, and the margin at its right.
_BESIDE = 36 + 12
_TICK = 26
_PICKABLE = 284
_TITLE, _SMALL = 14.6, 12.2  # sizes of text; that of a title is wider than its 13 pixels because it is bold
_NAMED = 12  # so many members of a group are named in its tip
# What a group that holds several states is shown as: the first of these that is in it.
_FOREMOST = (
    "failed",
    "timed_out",
    "lost",
    "terminating",
    "terminated",
    "running",
    "ready",
    "waiting",
    "waiting_to_rerun",
    "waiting_to_unfreeze",
    "not_ready",
)


@dataclass(frozen=True)
class Pick:
    """That a box can be ticked, and what comes of that: such boxes have a third line, and a box for the tick.

    `ticked` is `true`, `false`, of a group also `mixed`, and empty for what cannot be ticked. `value` is what a
    tick sends, of a group the values of its members with commas between them. `deed` is what is done to it, or
    why nothing can be, in few words; `count` a text beside it that leads to `href`, as a dialog.
    """

    ticked: str
    value: str
    deed: str = ""
    why: str = ""
    count: str = ""
    href: str = ""
    fixed: bool = False
    """The tick cannot be changed."""

    @property
    def can_change(self) -> bool:
        return self.ticked != "" and not self.fixed


@dataclass(frozen=True)
class Box:
    """Something that has a state and a name. `key` is unique in its flow and fit for an id of HTML."""

    key: str
    title: str
    state: str
    """The identifier, such as `timed_out`: its glyph in the sprite and its colour."""
    word: str
    """The state in the reader's language."""
    sub: str = ""
    """What else there is to say, in a few words."""
    href: str = ""
    panel: str = ""
    """An address whose answer is shown beside the flow, in the `target` of `draw`, instead of `href`."""
    selected: bool = False
    carried: bool = False
    """Taken over from an earlier run, not run by this one."""
    aside: bool = False
    """Takes no part any more, and is drawn as what is carried."""
    pick: Pick | None = None
    kept: str = ""
    """How the title ends, where that is never to be cut."""


@dataclass(frozen=True)
class Arrow:
    """`target` waits for `source`. `state`: `plain`, `live` (what is before it runs) or `untaken`."""

    source: str
    target: str
    state: str = "plain"
    label: str = ""
    """The condition, where it is not success: `on failure`, `always`, `rows = 0`."""


@dataclass(frozen=True)
class Share:
    """A part of the bar of a group: `x` and `width` in pixels."""

    state: str
    x: str
    width: str


@dataclass(frozen=True)
class DrawnBox:
    """A box as it is drawn: at `x`, `y`, with its text cut to what fits and whole in `tip` and `spoken`."""

    box: Box
    place: Place
    title: str
    sub: str
    tip: str
    spoken: str
    shares: Sequence[Share] = ()
    names: str = ""
    """Of a group: what its members are called, for the search."""
    pick: Pick | None = None

    @property
    def mark(self) -> str:
        """Its id in the page."""
        return f"node-{self.box.key}"

    @property
    def stripe(self) -> int:
        """How high the stripe of its state is."""
        return int(self.place.height) - 14


@dataclass(frozen=True)
class DrawnArrow:
    """An arrow as the data of an SVG path, with the place of its label."""

    arrow: Arrow
    path: str
    label_x: str
    label_y: str

    @property
    def mark(self) -> str:
        """Its id in the page."""
        return f"arrow-{self.arrow.source}-{self.arrow.target}"


@dataclass(frozen=True)
class Count:
    """How many boxes of a flow are in a state."""

    state: str
    word: str
    count: int


@dataclass(frozen=True)
class Flow:
    """What `workflows/flow.html` draws. Two flows of the same `shape` differ in states and words only."""

    mark: str
    width: int
    height: int
    boxes: Sequence[DrawnBox]
    arrows: Sequence[DrawnArrow]
    counts: Sequence[Count]
    summary: str
    shape: str
    target: str = ""
    """The CSS selector of the element that shows a box's `panel`."""
    folded: int = 0
    """How many nodes stand in groups."""
    fold_href: str = ""
    """Where the flow is shown with nothing opened; "" when nothing is."""
    unfold_href: str = ""
    """Where it is shown with nothing folded; "" when nothing is, or nowhere."""

    def only(self, keys: Collection[str]) -> Flow:
        """The boxes `keys` and the arrows at them alone, to take the place of what a page shows."""
        return replace(
            self,
            boxes=[drawn for drawn in self.boxes if drawn.box.key in keys],
            arrows=[drawn for drawn in self.arrows if drawn.arrow.source in keys or drawn.arrow.target in keys],
        )


@dataclass(frozen=True)
class Folds:
    """How the reader has folded a large flow, and the links that fold it otherwise."""

    opened: Collection[str] = ()
    """Nodes whose groups are drawn one by one."""
    whole: bool = False
    """Nothing is folded."""
    open_href: Callable[[str], str] | None = None
    """The address that shows the group of the node with this key one by one as well."""
    fold_href: str = ""
    whole_href: str = ""
    limit: int = LIMIT


def draw(
    boxes: Iterable[Box],
    arrows: Iterable[Arrow],
    *,
    mark: str = "flow",
    target: str = "",
    folds: Folds | None = None,
) -> Flow:
    """Draw `boxes` and `arrows`. `mark`: the id of the drawing; `target`: where the panels of boxes are shown.

    Raises ValueError as `layout.lay_out` does: for a cycle, or an arrow that ends nowhere.
    """
    known = {box.key: box for box in boxes}
    wanted, folds = list(arrows), folds or Folds()
    words = {box.state: box.word for box in known.values()}
    folded = _folded(
        tuple((key, box.state) for key, box in known.items()),
        tuple((arrow.source, arrow.target) for arrow in wanted if {arrow.source, arrow.target} <= known.keys()),
        (len(known), len(known) + 1) if folds.whole else (folds.limit, FAN),
        tuple(folds.opened),
        tuple(key for key, box in known.items() if box.selected),
    )
    shown = {key: known[key] for key, box in folded.shown.items() if key == box}
    for group in folded.groups.values():
        shown[group.key] = _group_box(group, known, words, folds)
    merged = _merged(wanted, folded.shown)
    layout = _laid_out(shown, folded.groups, merged)
    counts = _counts(known.values())
    hidden = sum(len(group.members) for group in folded.groups.values())
    return Flow(
        mark=mark,
        width=layout.width,
        height=layout.height,
        boxes=[
            _drawn_group(shown[key], place, folded.groups[key], known)
            if key in folded.groups
            else _drawn_box(shown[key], place)
            for key, place in layout.places.items()
        ],
        arrows=[_drawn_arrow(arrow, layout) for arrow in merged],
        counts=counts,
        summary=_summary(len(known), len(wanted), counts),
        shape=blake2s(
            repr(sorted(layout.routes)).encode() + repr(layout.places).encode(), digest_size=6
        ).hexdigest(),
        target=target,
        folded=hidden,
        fold_href=folds.fold_href if folds.opened or folds.whole else "",
        unfold_href=folds.whole_href if hidden else "",
    )


@lru_cache(maxsize=8)
def _folded(
    states: tuple[tuple[str, str], ...],
    arrows: tuple[tuple[str, str], ...],
    limits: tuple[int, int],
    opened: tuple[str, ...],
    apart: tuple[str, ...],
) -> Folded:
    """What a flow folds to, which is asked for with every tick in it."""
    limit, fan = limits
    return fold(dict(states), arrows, limit=limit, fan=fan, opened=opened, apart=apart)


# --- laying out ------------------------------------------------------------------------------------


def _laid_out(shown: Mapping[str, Box], groups: Mapping[str, Group], arrows: Sequence[Arrow]) -> Layout:
    needed = max((text_width(box.title, _TITLE) + _beside(box) for box in shown.values()), default=0.0)
    width = min(WIDEST, max(NARROWEST, int(needed)))
    if any(box.pick for box in shown.values()):
        height, group_height, width = PICK_HEIGHT, PICK_HEIGHT, _PICKABLE
    else:
        height, group_height = BOX_HEIGHT, GROUP_HEIGHT
    nodes = tuple(sorted((key, width, group_height if key in groups else height) for key in shown))
    labels = tuple(sorted(((arrow.source, arrow.target), text_width(arrow.label, _SMALL)) for arrow in arrows))
    return _layout(nodes, labels)


@lru_cache(maxsize=64)
def _layout(
    nodes: tuple[tuple[str, int, int], ...], labels: tuple[tuple[tuple[str, str], float], ...]
) -> Layout:
    return lay_out((Node(*node) for node in nodes), (pair for pair, _width in labels), dict(labels))


def _merged(arrows: Iterable[Arrow], shown: Mapping[str, str]) -> list[Arrow]:
    """One arrow between any two boxes: live if one of its arrows is, untaken if all are."""
    between: dict[tuple[str, str], list[Arrow]] = defaultdict(list)
    for arrow in arrows:
        source, target = shown.get(arrow.source, arrow.source), shown.get(arrow.target, arrow.target)
        if source != target or arrow.source == arrow.target:
            between[source, target].append(arrow)
    merged = []
    for (source, target), several in sorted(between.items()):
        states = {arrow.state for arrow in several}
        state = "live" if "live" in states else states.pop() if len(states) == 1 else "plain"
        labels = {arrow.label for arrow in several}
        merged.append(Arrow(source, target, state, labels.pop() if len(labels) == 1 else ""))
    return merged


# --- boxes, groups, arrows -------------------------------------------------------------------------


def _beside(box: Box) -> int:
    return _BESIDE + (_TICK if box.pick else 0)


def _drawn_box(box: Box, place: Place) -> DrawnBox:
    room, room_of_title = place.width - _BESIDE, place.width - _beside(box)
    said = [box.word, _("carried over")] if box.carried else [box.word]
    spoken = " · ".join(filter(None, [*said, box.sub]))
    sub, tip, pick = spoken, f"{box.title}\n{spoken}", box.pick
    if pick is not None:
        spoken = " · ".join(filter(None, [spoken, pick.count, pick.deed]))
        tip = "\n".join(filter(None, [tip, pick.why or pick.deed]))
        # The two stand at the ends of one line.
        left = room - text_width(pick.count, _SMALL) - 8 if pick.count else room
        pick = replace(pick, deed=cut(pick.deed, left, _SMALL))
    return DrawnBox(
        box,
        place,
        title=_cut_title(box, room_of_title),
        sub=cut(sub, room, _SMALL),
        tip=tip,
        spoken=f"{box.title}: {spoken}",
        pick=pick,
    )


def _cut_title(box: Box, room: float) -> str:
    begin = box.title.removesuffix(box.kept)
    return cut(begin, room - text_width(box.kept, _TITLE), _TITLE, middle=True) + box.kept


def _group_box(group: Group, known: Mapping[str, Box], words: Mapping[str, str], folds: Folds) -> Box:
    foremost = next((state for state in _FOREMOST if state in group.states), next(iter(group.states)))
    said = ", ".join(f"{number} {words[state].lower()}" for state, number in group.states.items())
    return Box(
        group.key,
        f"{len(group.members)} × {_common_name([known[key].title for key in group.members])}",
        foremost,
        words[foremost],
        sub=words[foremost] if len(group.states) == 1 else said,
        href=folds.open_href(group.members[0]) if folds.open_href else "",
    )


def _common_name(titles: Sequence[str]) -> str:
    """How `titles` begin, when they begin alike; else the first of them, which stands for all."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*titles, strict=False))
    begin = "".join(letters[0] for letters in alike)
    return f"{begin}…" if len(begin) > 2 else f"{titles[0]}, …"


def _drawn_group(box: Box, place: Place, group: Group, known: Mapping[str, Box]) -> DrawnBox:
    room, titles = place.width - _BESIDE, [known[key].title for key in group.members]
    pick = _group_pick([each for key in group.members if (each := known[key].pick) is not None])
    states = " · ".join(filter(None, [box.sub, pick.deed if pick else ""]))
    named = "\n".join(titles[:_NAMED]) + ("\n…" if len(titles) > _NAMED else "")
    shares, at, length = list[Share](), 0.0, place.width - 26
    for state, number in group.states.items():
        width = length * number / len(group.members)
        shares.append(Share(state, f"{at:.1f}", f"{width:.1f}"))
        at += width
    return DrawnBox(
        box,
        place,
        title=cut(box.title, room - (_TICK if pick else 0), _TITLE, middle=True),
        sub=cut(box.sub, room, _SMALL),
        tip=f"{box.title}: {states}\n{named}",
        spoken=_("%(nodes)s, folded: %(states)s")
        % {"nodes": ngettext("%d node", "%d nodes", len(titles)) % len(titles), "states": states},
        shares=shares,
        names="\n".join(titles),
        pick=pick,
    )


def _group_pick(picks: Sequence[Pick]) -> Pick | None:
    """The tick of a group: that of its members when they agree. It changes those that can be changed."""
    if not picks:
        return None
    changing = [each for each in picks if each.can_change]
    ticked = sum(each.ticked == "true" for each in picks)
    said = "" if not changing else "false" if not ticked else "mixed"
    if changing and all(each.ticked == "true" for each in changing):
        said = "true"
    return Pick(
        said,
        ",".join(each.value for each in changing),
        deed=_("%(ticked)d of %(all)d ticked") % {"ticked": ticked, "all": len(picks)},
        fixed=not changing,
    )


def _drawn_arrow(arrow: Arrow, layout: Layout) -> DrawnArrow:
    route = layout.routes[arrow.source, arrow.target]
    return DrawnArrow(arrow, route.path, f"{route.label_x:.0f}", f"{route.label_y + 4:.0f}")


# --- words -----------------------------------------------------------------------------------------


def _counts(boxes: Iterable[Box]) -> list[Count]:
    counted = Counter((box.state, box.word) for box in boxes)
    order = {state: place for place, state in enumerate(_FOREMOST)}
    ranked = sorted(counted.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0]))
    return [Count(state, word, count) for (state, word), count in ranked]


def _summary(boxes: int, arrows: int, counts: Iterable[Count]) -> str:
    states = ", ".join(f"{each.count} {each.word.lower()}" for each in counts)
    nodes = ngettext("%d node", "%d nodes", boxes) % boxes
    joined = ngettext("%d dependency", "%d dependencies", arrows) % arrows
    return _("Flow of %(nodes)s and %(arrows)s: %(states)s") % {
        "nodes": nodes,
        "arrows": joined,
        "states": states,
    }


def text_width(text: str, size: float) -> float:
    """About how wide `text` is in the font of the pages at `size` pixels, rather too wide than too narrow."""
    return size * sum(map(_letter_width, text))


@lru_cache(maxsize=4096)
def _letter_width(letter: str) -> float:
    if east_asian_width(letter) in "WF":
        return 1.04
    if letter in "iljtfrI.,:;'|!()[] ·":
        return 0.36
    return 0.9 if letter in "mwMW@%" else 0.7 if letter.isupper() else 0.6


def cut(text: str, room: float, size: float, *, middle: bool = False) -> str:
    """`text`, or what of it fits into `room` pixels at `size`, with `…` at its end or in its `middle`."""
    if text_width(text, size) <= room:
        return text
    widths = accumulate(text_width(letter, size) for letter in text)
    count = sum(1 for _ in takewhile(lambda width: width <= room - size, widths))
    tail = count // 3 if middle else 0
    return text[: count - tail].rstrip() + "…" + (text[-tail:] if tail else "")
