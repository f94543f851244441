"""The items of a rerun as a flow. A large one has a box for each workflow, which is opened to its items."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from reruns import record_queries as ask
from reruns.models import Rerun
from reruns.states import ItemState
from reruns.views.rows import shown_state, state_in_words
from reruns.views.which import Which
from scheduling import clocks
from scheduling.models import Team
from scheduling.permissions import User
from workflows.drawing import Arrow, Box, Folds, draw
from workflows.graph import CycleFound, refuse_cycles
from workflows.links import sees
from workflows.views.cycle_flow import FlowSection

# So many items are drawn one by one, as far as the drawing does not fold them itself.
ONE_BY_ONE = 400
# What a box that stands for several looks like: the first of these that one of them is in.
_FOREMOST = (
    *("failed", "terminated", "running", "ready", "waiting_to_rerun", "waiting_to_unfreeze", "not_ready"),
    *("cancelled", "success"),
)
# Whose instances go on by themselves.
_FOLLOWED = frozenset({ItemState.RUNNING, ItemState.CANCELLED, ItemState.UNFROZEN})


def flow_section(rerun: Rerun, which: Which, user: User) -> FlowSection:
    """The flow of a submitted rerun, with the states of its items as they are shown."""
    shape, standing = ask.shape_of(rerun), ask.standing_of(rerun)
    states = _states(rerun, standing)
    groups, pairs = _grouping(ask.key_of(rerun), which.opened)
    by_id = {each.pk: each for each in shape.pieces}
    teams = dict(Team.objects.filter(pk__in={each.team_id for each in shape.pieces}).values_list("pk", "name"))
    boxes = [
        _box(key, by_id[members[0]], standing[members[0]], states[members[0]], teams, user)
        if len(members) == 1
        else _box_of_many(key, [by_id[pk] for pk in members], states, which, teams, user)
        for key, members in groups.items()
        if members[0] in standing
    ]
    drawn = {box.key for box in boxes}
    live = {key for key, members in groups.items() if any(_runs(standing.get(pk)) for pk in members)}
    arrows = [
        Arrow(source, target, "live" if source in live else "plain")
        for source, target in pairs
        if source in drawn and target in drawn
    ]
    folds = Folds(
        opened=which.folds,
        whole=which.whole,
        open_href=lambda key: which.changed(fold=[*which.folds, key]),
        fold_href=which.changed(open=[], fold=[], whole=False),
        whole_href=which.changed(open=[], fold=[], whole=True),
    )
    flow = draw(boxes, arrows, folds=folds)
    return FlowSection(flow.mark, flow, {"flow": flow, "grouped": len(groups) < len(shape.pieces)})


def _runs(stands: ask.Standing | None) -> bool:
    return stands is not None and stands.state == ItemState.RUNNING


def _states(rerun: Rerun, standing: Mapping[int, ask.Standing]) -> dict[int, str]:
    """The state in which each item is shown."""
    ended = rerun.is_finished
    # What has ended in it ended as its instance did.
    live = ask.live_states(
        each.instance_id or each.original_id
        for each in standing.values()
        if each.state in _FOLLOWED and not (ended and each.shown)
    )
    return {
        pk: shown_state(
            each.state,
            ended=ended,
            shown=each.shown,
            live=live.get(each.instance_id or each.original_id),
            seen="not_ready",
            generated=each.instance_id is not None,
        )
        for pk, each in standing.items()
    }


# --- what is drawn as one box ------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _grouping(
    key: tuple[int, Any, int], opened: tuple[int, ...]
) -> tuple[Mapping[str, Sequence[int]], Sequence[tuple[str, str]]]:
    """The items of each box by its key, and the arrows between boxes; `opened` workflows one by one."""
    shape = ask.shape_named(key)
    edges = [(up, pk) for pk, ups in shape.upstreams.items() for up in ups] + list(shape.loose)
    if len(shape.pieces) <= ONE_BY_ONE:
        groups = {f"i{each.pk}": [each.pk] for each in shape.pieces}
    elif len(_by(shape, (), _workflow_and_wave)) <= ONE_BY_ONE:
        groups = _by(shape, opened, _workflow_and_wave)
    else:
        groups = _by(shape, (), _workflow)
        # Two workflows that wait for each other cannot be drawn as two boxes.
        if len(groups) <= ONE_BY_ONE and _is_acyclic(groups, edges):
            groups = _by(shape, opened, _workflow)
        else:
            groups = _by(shape, (), _wave)
    return groups, _pairs(groups, edges)


def _workflow_and_wave(piece: ask.Piece) -> str:
    return f"g{piece.workflow_id}w{piece.wave}"


def _workflow(piece: ask.Piece) -> str:
    return f"g{piece.workflow_id}"


def _wave(piece: ask.Piece) -> str:
    return f"w{piece.wave}"


def _by(shape: ask.Shape, opened: Collection[int], of: Callable[[ask.Piece], str]) -> dict[str, list[int]]:
    """What `of` gives the same key to is one box, but for what is frozen and for `opened` workflows."""
    together: dict[str, list[int]] = defaultdict(list)
    for each in shape.pieces:
        key = f"i{each.pk}" if each.workflow_id in opened else of(each) + ("f" if each.freeze else "")
        together[key].append(each.pk)
    return {key if len(members) > 1 else f"i{members[0]}": members for key, members in together.items()}


def _pairs(groups: Mapping[str, Sequence[int]], edges: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    box_of = {pk: key for key, members in groups.items() for pk in members}
    pairs = {(box_of[up], box_of[down]) for up, down in edges}
    return sorted((source, target) for source, target in pairs if source != target)


def _is_acyclic(groups: Mapping[str, Sequence[int]], edges: Sequence[tuple[int, int]]) -> bool:
    try:
        refuse_cycles(groups, _pairs(groups, edges))
    except CycleFound:
        return False
    return True


# --- boxes -------------------------------------------------------------------------------------------


def _named(piece: ask.Piece, teams: Mapping[int, str], user: User) -> str:
    """The workflow of an item, with its team where its reader may not open it."""
    name, _time = clocks.parted(piece.name)
    return name if sees(user, piece.team_id) else f"{teams.get(piece.team_id, '')}/{name}"


def _box(
    key: str, piece: ask.Piece, stands: ask.Standing, state: str, teams: Mapping[int, str], user: User
) -> Box:
    instance = stands.instance_id or stands.original_id
    time = f" {clocks.parted(piece.name)[1][5:]}".rstrip()
    return Box(
        key,
        # The time is in the title, as a rerun has many cycles of one workflow.
        _named(piece, teams, user) + time,
        state,
        state_in_words(state),
        _("not rerun") if stands.state == ItemState.CANCELLED else "",
        kept=time,
        href=reverse("cycle-detail", args=[instance]) if sees(user, piece.team_id) else "",
        aside=stands.state == ItemState.CANCELLED,
    )


def _box_of_many(
    key: str,
    pieces: Sequence[ask.Piece],
    states: Mapping[int, str],
    which: Which,
    teams: Mapping[int, str],
    user: User,
) -> Box:
    """One box for items of a workflow or of a wave; it leads to where they are drawn, or listed, one by one."""
    counted = Counter(states.get(piece.pk, "not_ready") for piece in pieces)
    order = {state: at for at, state in enumerate(_FOREMOST)}
    ranked = sorted(counted.items(), key=lambda item: order.get(item[0], len(order)))
    said = [f"{count} {state_in_words(state).lower()}" for state, count in ranked]
    foremost, workflow = ranked[0][0], pieces[0].workflow_id
    name = _named(pieces[0], teams, user)
    if any(piece.workflow_id != workflow for piece in pieces):
        name = _("wave %d") % pieces[0].wave
        href = which.changed(view="list", wave=pieces[0].wave)
    elif len(pieces) > ONE_BY_ONE // 2:
        href = which.changed(view="list", workflow=workflow)
    else:
        href = which.changed(open=[*which.opened, workflow])
    return Box(
        key,
        f"{len(pieces)} × {name}",
        foremost,
        state_in_words(foremost),
        ", ".join(said) if len(said) > 1 else "",
        href=href,
    )
