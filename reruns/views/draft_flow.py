"""The flow view of step 2: everything downstream, wave by wave, with a tick in each box."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from reruns import planning
from reruns.candidates import Candidate
from reruns.plans import Plan
from reruns.views.draft_filter import DraftFilter
from reruns.views.draft_words import nodes_of, short_deed_of
from scheduling import clocks
from workflows.drawing import Arrow, Box, DrawnBox, Flow, Folds, Pick, draw

# More than anybody unfolds one by one.
MOST_OPENED = 50


@dataclass(frozen=True)
class FlowView:
    """The drawing, with four letters a box, by which a page that shows it tells which boxes are old."""

    flow: Flow

    @property
    def shown(self) -> str:
        return f"{self.flow.shape}.{''.join(map(_letters, self.flow.boxes))}"

    def since(self, shown: str) -> Flow | None:
        """The boxes that differ from a page that shows `shown`; None when all is to be drawn anew."""
        shape, _dot, letters = shown.partition(".")
        if shape != self.flow.shape or len(letters) != 4 * len(self.flow.boxes):
            return None
        old = {
            drawn.box.key
            for number, drawn in enumerate(self.flow.boxes)
            if letters[4 * number : 4 * number + 4] != _letters(drawn)
        }
        return replace(self.flow.only(old), arrows=[])


def _letters(drawn: DrawnBox) -> str:
    looks = repr((drawn.box.state, drawn.spoken, drawn.tip, drawn.pick, drawn.shares))
    return b64encode(zlib.crc32(looks.encode()).to_bytes(4)[:3], b"-_").decode()


def flow_view(filters: DraftFilter, request: Any) -> FlowView:
    """The flow of what matches, with the source; arrows pass through what the filter leaves out."""
    plan = filters.plan
    shown = [plan.source, *filters.matching]
    boxes = list(map(_Boxes(plan).of, shown))
    opened = [key[:20] for key in request.GET.getlist("open")[:MOST_OPENED]]
    query = filters.query
    folds = Folds(
        opened=opened,
        whole="whole" in request.GET,
        open_href=lambda key: _with(query, [("open", each) for each in [*opened, key]]),
        fold_href=_with(query, []),
        whole_href=_with(query, [("whole", "1")]),
    )
    return FlowView(draw(boxes, _arrows(filters, shown), folds=folds))


def _with(query: str, pairs: list[tuple[str, str]]) -> str:
    return f"?{'&'.join(filter(None, [query, urlencode(pairs)]))}#flow-view"


class _Boxes:
    """Boxes of candidates. Thousands say the same in a few ways, so each is put into words once."""

    def __init__(self, plan: Plan) -> None:
        self._nodes_page = reverse("draft-nodes", args=[plan.rerun.pk, 0]).removesuffix("0/")
        self._said: dict[tuple[Any, ...], str] = {}

    def of(self, it: Candidate) -> Box:
        refusal, cycle, state = it.refusal, str(it.cycle_id), it.state
        chosen = it.chosen
        # What is ticked and cannot be done any more can still be unticked.
        ticked = "true" if it.is_source or chosen else "" if refusal else "false"
        # A refusal is one object for all that it is about.
        deed = ("deed", id(refusal), chosen, it.action, it.outlook)
        count = ("count", chosen, it.node_count, it.node_total)
        return Box(
            key=cycle,
            title=it.workflow,
            state=state,
            word=self._words(("state", state), lambda: it.state_label),
            sub=f"{clocks.minute(it.cycle_time)[5:]} · {it.team}",
            # The source is where one begins to look.
            selected=it.is_source,
            pick=Pick(
                ticked,
                cycle,
                deed=self._words(deed, lambda: short_deed_of(it)),
                why=self._words(("why", id(refusal)), lambda: refusal.text) if refusal else "",
                count="" if refusal else self._words(count, lambda: nodes_of(it)),
                href=f"{self._nodes_page}{cycle}/",
                fixed=it.is_source,
            ),
        )

    def _words(self, of: tuple[Any, ...], say: Callable[[], str]) -> str:
        said = self._said.get(of)
        if said is None:
            said = self._said[of] = say()
        return said


def _arrows(filters: DraftFilter, shown: list[Candidate]) -> list[Arrow]:
    affected = filters.plan.situation.affected
    places = {affected.position[each.cycle_id]: str(each.cycle_id) for each in shown}
    try:
        waits = planning.contract(affected.graph, places)
    except planning.TooManyDependencies:
        waits = {at: set(affected.graph.upstreams[at]) & places.keys() for at in places}
    return [Arrow(places[up], places[at]) for at, ups in waits.items() for up in ups]
