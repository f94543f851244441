"""A plan as the shell shows it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from scheduling import clocks
from scheduling.words import length

if TYPE_CHECKING:
    from reruns.candidates import Candidate
    from reruns.plans import Plan

SHOWN = 40


def printed(plan: Plan) -> str:
    """What will happen in sums, then what is chosen wave by wave, then what cannot be chosen and why."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    yield f"{plan.rerun}: rerun downstream of {plan.rerun.title} ({plan.rerun.get_state_display()})"
    yield from _sums(plan)
    yield from _table(sorted(plan.chosen, key=lambda each: each.wave))
    if holes := plan.holes:
        yield "read but not rerun, so that old results are used (choose these too, or submit with accepted=…):"
        yield from (
            f"  {each.upstream_id:>8}  {each.upstream_title}, read by {each.title}" for each in holes[:SHOWN]
        )
        yield from _more(len(holes))
    if drift := plan.drift:
        yield "changed since they were chosen:"
        yield from (f"  {each.title}: was {each.was}, now {each.now}" for each in drift[:SHOWN])
        yield from _more(len(drift))
    if refused := plan.refused:
        yield "cannot be chosen:"
        yield from (f"  {each.cycle_id:>8}  {each.name}: {each.refusal}" for each in refused[:SHOWN])
        yield from _more(len(refused))
    for missing in plan.missing:
        yield f"for what you may not rerun of {missing.team} ask {', '.join(missing.people) or 'its owner'}"


def _sums(plan: Plan) -> Iterator[str]:
    sums = plan.summary
    yield (
        f"reruns {sums.instances} (nodes: {sums.nodes}), of these terminates first {sums.terminated}; "
        f"freezes until it succeeded {sums.frozen}; leaves alone {sums.skipped}"
    )
    yield (
        f"waves: {sums.waves}; longest path {_span(sums.longest_path_seconds)}, "
        f"all {_span(sums.total_seconds)}: would end {clocks.titled(sums.ends_at)}"
        + (f", not counting {sums.unknown} that never succeeded yet" if sums.unknown else "")
    )


def _table(chosen: list[Candidate]) -> Iterator[str]:
    yield "wave  starts     ends       action                  nodes  state       cycle"
    for each in chosen[:SHOWN]:
        yield (
            f"{each.wave:>4}  {_span(each.starts):<9}  {_span(each.ends):<9}  {each.action_label:<22}  "
            f"{f'{each.node_count}/{each.node_total}':<5}  {each.state_label:<10}  {each.name}"
        )
    yield from _more(len(chosen))


def _more(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"  … and {count - SHOWN} more"


def _span(seconds: float | None) -> str:
    return "" if seconds is None else length(timedelta(seconds=seconds))
