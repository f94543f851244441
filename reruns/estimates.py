"""How long what is chosen would take, from how long it took before."""

from __future__ import annotations

from collections.abc import Mapping

from reruns import affected as graph
from reruns import planning
from reruns.situation import Situation


def seconds_of(situation: Situation, chosen: Mapping[int, tuple[str, ...]]) -> tuple[dict[int, float], int]:
    """The seconds that each chosen instance, with its nodes (none: all), usually takes; of how many nobody
    knows.

    All nodes take what the whole took; some take the longest way through them. What never succeeded takes 0.
    """
    workflows, content_ids = situation.affected.workflow_id, situation.content_ids
    whole = graph.typical_seconds({workflows[at] for at, nodes in chosen.items() if not nodes})
    in_part = _in_part(situation, {at: nodes for at, nodes in chosen.items() if nodes})
    known = {
        at: in_part[workflows[at], content_ids[at], nodes] if nodes else whole.get(workflows[at])
        for at, nodes in chosen.items()
    }
    return {at: seconds or 0.0 for at, seconds in known.items()}, list(known.values()).count(None)


def _in_part(
    situation: Situation, chosen: Mapping[int, tuple[str, ...]]
) -> dict[tuple[int, int, tuple[str, ...]], float | None]:
    """The longest way through each choice (workflow, content, nodes); None when nobody knows of a node."""
    if not chosen:
        return {}
    workflows, content_ids = situation.affected.workflow_id, situation.content_ids
    choices = {(workflows[at], content_ids[at], nodes) for at, nodes in chosen.items()}
    seconds = graph.typical_node_seconds({workflow for workflow, _content, _nodes in choices})
    edges = graph.edges_by_content({content for _workflow, content, _nodes in choices})
    return {choice: _through(choice[2], edges[choice[1]], seconds[choice[0]]) for choice in choices}


def _through(
    nodes: tuple[str, ...], edges: list[tuple[str, str]], seconds: Mapping[str, float]
) -> float | None:
    if any(key not in seconds for key in nodes):
        return None
    number = {key: at for at, key in enumerate(nodes)}
    # Edges from and to what is carried count for nothing, as when it runs.
    between = [
        (number[source], number[target]) for source, target in edges if source in number and target in number
    ]
    takes = {at: seconds[key] for key, at in number.items()}
    return planning.longest_path(planning.CycleGraph.of(len(nodes), between), takes)[0]
