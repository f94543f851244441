"""The nodes of a cycle instance as a flow and as a timeline."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from scheduling.templatetags.tailrace import duration
from scheduling.views.sections import Section
from workflows import timeline as timelines
from workflows import words
from workflows.drawing import Arrow, Box, DrawnArrow, DrawnBox, Flow, Folds, draw
from workflows.graph import Edge, Ended
from workflows.graphs import graph_of
from workflows.models import CycleInstance, NodeRun
from workflows.states import NodeRunState


@dataclass(frozen=True)
class Choice:
    """What the address of a cycle instance's page says: its view, the chosen node, what is unfolded."""

    view: str = "flow"
    node: str = ""
    opened: tuple[str, ...] = ()
    whole: bool = False
    levels: int = 2

    @property
    def query(self) -> str:
        return self.changed()

    def changed(self, **values: Any) -> str:
        """The query string of the page with some of it changed."""
        given: dict[str, Any] = {
            "view": self.view,
            "node": self.node,
            "open": list(self.opened),
            "whole": self.whole,
        }
        given |= {"levels": self.levels} | values
        usual = Choice()
        pairs: list[tuple[str, Any]] = []
        if given["view"] != usual.view:
            pairs.append(("view", given["view"]))
        if given["node"]:
            pairs.append(("node", given["node"]))
        pairs += [("open", each) for each in given["open"]]
        if given["whole"]:
            pairs.append(("whole", 1))
        if given["levels"] != usual.levels:
            pairs.append(("levels", given["levels"]))
        return f"?{urlencode(pairs)}"


@dataclass(frozen=True)
class FlowSection:
    """A flow on a page. Its digest has four letters a box, so that what differs is known box by box."""

    mark: str
    flow: Flow
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        boxes = "".join(map(_letters, self.flow.boxes))
        return f"{self.flow.shape}.{boxes}{_letters(*self.flow.arrows)}"

    def since(self, shown: str) -> Flow | None:
        """What differs from a page that has shown the digest `shown`; None when all is to be drawn anew."""
        shape, _dot, letters = shown.partition(".")
        if shape != self.flow.shape or len(letters) != 4 * len(self.flow.boxes) + 4:
            return None
        return self.flow.only(
            {
                drawn.box.key
                for number, drawn in enumerate(self.flow.boxes)
                if letters[4 * number : 4 * number + 4] != _letters(drawn)
            }
        )


def _letters(*drawn: DrawnBox | DrawnArrow) -> str:
    """Four letters that stand for how something looks."""
    looks = [
        (each.box.state, each.spoken, each.box.carried, each.shares, each.tip)
        if isinstance(each, DrawnBox)
        else each.arrow.state
        for each in drawn
    ]
    return b64encode(zlib.crc32(repr(looks).encode()).to_bytes(4)[:3], b"-_").decode()


# --- the flow ----------------------------------------------------------------------------------------


def flow_section(
    instance: CycleInstance, runs: Sequence[NodeRun], choice: Choice, typical: Mapping[str, timedelta]
) -> FlowSection:
    """The DAG of an instance with the states of its node runs."""
    by_id = {str(run.node_id): run for run in runs}
    edges = graph_of(instance.revision_id).edges
    waits: dict[str, list[str]] = {}
    for edge in edges:
        if not by_id[edge.source].is_finished:
            waits.setdefault(edge.target, []).append(by_id[edge.source].node.key)
    panel = reverse("cycle-node", args=[instance.pk])
    boxes = [
        Box(
            key=str(run.node.number),
            title=run.node.key,
            state=run.state,
            word=str(NodeRunState(run.state).label),
            sub=_sub(run, waits.get(str(run.node_id), []), typical),
            href=choice.changed(node=run.node.key),
            panel=panel + choice.changed(node=run.node.key),
            selected=run.node.key == choice.node,
            carried=run.carried,
        )
        for run in runs
    ]
    arrows = [_arrow(edge, by_id) for edge in edges]
    folds = Folds(
        opened=choice.opened,
        whole=choice.whole,
        open_href=lambda key: choice.changed(open=[*choice.opened, key]),
        fold_href=choice.changed(open=[], whole=False),
        whole_href=choice.changed(open=[], whole=True),
    )
    flow = draw(boxes, arrows, target="#panel", folds=folds)
    return FlowSection(flow.mark, flow, {"flow": flow})


def _sub(run: NodeRun, waits: Sequence[str], typical: Mapping[str, timedelta]) -> str:
    """What there is to say of a node in a few words."""
    batch = run.batch
    usually = typical.get(run.node.key)
    match run.state:
        case NodeRunState.WAITING:
            return _("for %s") % ", ".join(waits) if waits else ""
        case NodeRunState.RUNNING:
            shards = _("%(done)d of %(total)d") % _counts(run) if batch and batch.total > 1 else ""
            often = _("usually %s") % duration(usually) if usually is not None else ""
            if run.ran_at is None:
                return _("queued")
            return " · ".join(filter(None, [shards, often]))
        case NodeRunState.CANCELLED | NodeRunState.CONDITION_NOT_MET:
            return ""
        case _:
            shards = _("%(done)d of %(total)d") % _counts(run) if batch and batch.total > 1 else ""
            return " · ".join(filter(None, [shards, *_times(run)]))


_SHOWN_WAIT = timedelta(seconds=1)


def _times(run: NodeRun) -> list[str]:
    """How long a node ran, and how long it was queued before, if that is worth a word."""
    took = [] if run.took is None else [duration(run.took)]
    queued = run.waited is not None and run.waited >= _SHOWN_WAIT
    return [*took, *([_("queued %s") % duration(run.waited)] if queued and run.waited is not None else [])]


def _counts(run: NodeRun) -> dict[str, int]:
    return {"done": run.batch.succeeded, "total": run.batch.total} if run.batch else {"done": 0, "total": 0}


def _arrow(edge: Edge, runs: Mapping[str, NodeRun]) -> Arrow:
    source, target = runs[edge.source], runs[edge.target]
    state = "plain"
    if source.state == NodeRunState.RUNNING:
        state = "live"
    elif source.is_finished and not edge.holds(Ended(source.state, source.result)):
        state = "untaken"
    label = words.of_condition(edge.condition.value, edge.expected)
    return Arrow(str(source.node.number), str(target.node.number), state, label)


# --- the timeline ------------------------------------------------------------------------------------

# The line of the present moves on in such steps, in seconds.
_STEP = 5


def timeline_section(instance: CycleInstance, runs: Iterable[NodeRun], choice: Choice) -> Section:
    """When the nodes of an instance waited and ran."""
    listed = list(runs)
    numbers = {str(run.node_id): str(run.node.number) for run in listed}
    incoming = graph_of(instance.revision_id).incoming
    rows = [
        timelines.Run(
            key=numbers[str(run.node_id)],
            name=run.node.key,
            state=run.state,
            word=str(NodeRunState(run.state).label),
            # What is carried ran in another instance, at times of its own.
            queued_at=None if run.carried else run.started_at,
            started_at=None if run.carried or run.batch is None else run.batch.started_at,
            ended_at=None if run.carried else run.ended_at,
            href=choice.changed(node=run.node.key),
            sub=_("carried over") if run.carried else "",
            after=tuple(numbers[edge.source] for edge in incoming[str(run.node_id)]),
        )
        for run in sorted(listed, key=_begun)
    ]
    now = timezone.now()
    drawn = timelines.timeline(rows, now=now, zone=timezone.get_current_timezone())
    moment = 0 if instance.is_finished else int(now.timestamp()) // _STEP
    return Section("timeline", (rows, moment), {"timeline": drawn})


def _begun(run: NodeRun) -> tuple[bool, Any, int]:
    """In the order in which they began, then what has not."""
    there = run.started_at is not None and not run.carried
    return (not there, run.started_at if there else run.node.number, run.node.number)
