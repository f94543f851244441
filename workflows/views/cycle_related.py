"""The cycles around one: what it waits for and what waits for it, several dependencies both ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.utils import timezone
from django.utils.translation import gettext as _

from scheduling import clocks
from scheduling.permissions import User
from scheduling.reasons import actor_in_words
from workflows import detail_queries as ask
from workflows.drawing import Arrow, Box, Folds, draw
from workflows.graph import CycleFound, refuse_cycles
from workflows.links import address_of, sees
from workflows.models import Cycle, CycleInstance
from workflows.states import CYCLE, CycleState
from workflows.views.cycle_flow import Choice, FlowSection

# As many cycles of a workflow as are drawn one by one.
WIDE = 5
# What a box that stands for several cycles looks like: the first of these that one of them is in.
_FOREMOST = ("failed", "terminated", "running", "frozen", "ready", "not_ready", "cancelled", "success")


def related_section(instance: CycleInstance, choice: Choice, user: User) -> tuple[FlowSection, bool]:
    """The cycles around that of `instance` as a flow, and whether all of them have ended."""
    near = ask.neighbours(instance.cycle_id, choice.levels)
    # The page is about this run, be it the effective one or not.
    near.cycles[instance.cycle_id].effective = instance
    groups = _groups(near, instance.cycle_id, choice.opened)
    box_of = {pk: key for key, members in groups.items() for pk in members}
    boxes = [
        _box(key, [near.cycles[pk] for pk in members], near, choice, user) for key, members in groups.items()
    ]
    pairs = {(box_of[source], box_of[target]) for source, target in near.edges}
    live = {box_of[pk] for pk, cycle in near.cycles.items() if _state(cycle) == CycleState.RUNNING}
    arrows = [
        Arrow(source, target, "live" if source in live else "plain")
        for source, target in sorted(pairs)
        if source != target
    ]
    flow = draw(boxes, arrows, mark="related", folds=Folds(whole=True))
    context = {
        "flow": flow,
        "cut": near.cut,
        "levels": choice.levels,
        "deeper": choice.changed(levels=choice.levels + 1) if choice.levels < ask.MOST_LEVELS else "",
        "nearer": choice.changed(levels=choice.levels - 1) if choice.levels > 1 else "",
        "together": choice.changed(open=[]) if choice.opened else "",
        "alone": len(near.cycles) == 1,
    }
    at_rest = all(_state(cycle) in CYCLE.final for cycle in near.cycles.values())
    return FlowSection("related", flow, context), at_rest


# --- what is drawn as one box ------------------------------------------------------------------------


def _groups(near: ask.Neighbours, centre: int, opened: Iterable[str]) -> dict[str, list[int]]:
    """The cycles of each box, by its key: many cycles of one workflow are one, unless they are `opened`.

    Workflows that depend on each other's cycles in turn would make a circle; their cycles are then taken
    together only at equal distance.
    """
    by_workflow = _grouped(near, centre, opened, lambda pk: "up" if near.distance[pk] < 0 else "down")
    box_of = {pk: key for key, members in by_workflow.items() for pk in members}
    pairs = {(box_of[source], box_of[target]) for source, target in near.edges}
    try:
        refuse_cycles(by_workflow, [(source, target) for source, target in pairs if source != target])
    except CycleFound:
        depth = _longest(near.distance, near.edges)
        return _grouped(near, centre, opened, lambda pk: str(depth[pk]))
    return by_workflow


def _grouped(
    near: ask.Neighbours, centre: int, opened: Iterable[str], side: Callable[[int], str]
) -> dict[str, list[int]]:
    open_workflows = set(opened)
    together: dict[str, list[int]] = defaultdict(list)
    for pk, cycle in sorted(near.cycles.items(), key=lambda item: item[1].cycle_time):
        alone = pk == centre or str(cycle.workflow_id) in open_workflows
        together[_key(cycle) if alone else f"w{cycle.workflow_id}{side(pk)}"].append(pk)
    found: dict[str, list[int]] = {}
    for key, members in together.items():
        one_by_one = {_key(near.cycles[pk]): [pk] for pk in members}
        found |= {key: members} if len(members) > WIDE else one_by_one
    return found


def _key(cycle: Cycle) -> str:
    """The key of a cycle that is drawn by itself; a drawing has its boxes in the order of their keys."""
    return f"c{cycle.cycle_time:%Y%m%d%H%M}-{cycle.pk}"


def _longest(distance: Iterable[int], edges: Sequence[tuple[int, int]]) -> dict[int, int]:
    """How many cycles are before each at the most: no arrow leads to one that has as few."""
    depth = dict.fromkeys(distance, 0)
    after: dict[int, list[int]] = defaultdict(list)
    left: Counter[int] = Counter()
    for source, target in edges:
        after[source].append(target)
        left[target] += 1
    ready = [pk for pk in depth if not left[pk]]
    while ready:
        source = ready.pop()
        for target in after[source]:
            depth[target] = max(depth[target], depth[source] + 1)
            left[target] -= 1
            if not left[target]:
                ready.append(target)
    return depth


# --- boxes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    state: str
    word: str


def _state(cycle: Cycle) -> str:
    return cycle.effective.state if cycle.effective is not None else ""


def _look(cycle: Cycle) -> _Look:
    effective: CycleInstance | None = cycle.effective
    if effective is None:
        return _Look("not_ready", _("Not generated"))
    if effective.is_frozen:
        return _Look("frozen", _("Frozen"))
    return _Look(effective.state, str(CycleState(effective.state).label))


def _box(key: str, cycles: Sequence[Cycle], near: ask.Neighbours, choice: Choice, user: User) -> Box:
    [first, *others] = cycles
    workflow = first.workflow
    seen = sees(user, workflow.team_id)
    name = workflow.name if seen else f"{workflow.team.name}/{workflow.name}"
    if others:
        return _box_of_many(key, name, cycles, choice)
    look, effective = _look(first), first.effective
    sub = clocks.minute(first.cycle_time).removeprefix(f"{timezone.now():%Y}-")
    if effective is not None and effective.is_frozen:
        sub = f"{sub} · {_('by %s') % actor_in_words(effective.frozen_by)}"
    return Box(
        key,
        name,
        look.state,
        look.word,
        sub,
        href=address_of(effective) + "?view=related" if seen and effective is not None else "",
        selected=near.distance[first.pk] == 0,
    )


def _box_of_many(key: str, name: str, cycles: Sequence[Cycle], choice: Choice) -> Box:
    """One box for the cycles of a workflow; it leads to the page on which they are drawn one by one."""
    looks = Counter(map(_look, cycles))
    foremost = min(looks, key=lambda look: _FOREMOST.index(look.state))
    counts: Mapping[_Look, int] = dict(sorted(looks.items(), key=lambda item: _FOREMOST.index(item[0].state)))
    said = [f"{count} {look.word.lower()}" for look, count in counts.items()]
    sub = ", ".join(said) if len(said) > 1 else ""
    opened = [*choice.opened, str(cycles[0].workflow_id)]
    return Box(
        key,
        f"{len(cycles)} × {name}",
        foremost.state,
        foremost.word,
        sub,
        href=choice.changed(open=opened),
    )
