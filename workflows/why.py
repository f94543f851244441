"""Why a cycle instance or a node of it is not running, or did not succeed: every cause in words, with links.

A cause is a sentence whose links stand where the words are; what the reader may not see is named, not linked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils import timezone
from django.utils.html import conditional_escape, escape
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling import words as words_of_time
from scheduling.permissions import User
from scheduling.reasons import actor_in_words, in_words
from scheduling.templatetags.tailrace import duration, when
from scheduling.views import why as scheduling_why
from workflows import detail_queries as ask
from workflows.graph import Decision, Edge, Ended, Graph
from workflows.graphs import graph_of
from workflows.links import (
    address_of,
    anchor,
    cycle_link,
    cycle_name,
    instance_name,
    node_address,
    page_link,
    sees,
)
from workflows.mentions import linked
from workflows.models import Cycle, CycleInstance, Mode, NodeRun, RunType, Stopping, Workflow
from workflows.states import BackfillState, CycleState, NodeRunState
from workflows.words import of_holder

NAMED = 5
GROUPS_NAMED = 3
ROOTS_NAMED = 3


@dataclass(frozen=True)
class Cause:
    """One cause. `kind` is what it is about; `text` is marked up, and `said` what of it makes a difference."""

    kind: str
    text: SafeString
    state: str = ""
    """The state of what it is about, for the glyph."""
    said: tuple[Any, ...] = field(default=())

    def __repr__(self) -> str:
        # What stands on the page is put in anew when this differs: clocks in the text go on by themselves.
        return f"{self.kind} {self.state} {self.said}"


def of_cycle(instance: CycleInstance, user: User) -> list[Cause]:
    """Why `instance` (from `detail_queries.instances`) does not run, or did not end well; else nothing."""
    frozen = [_frozen(instance)] if instance.is_frozen else []
    match instance.state:
        case CycleState.NOT_READY:
            # While its workflow is disabled, its time decides nothing.
            return frozen + (_switched_off(instance) or _not_due(instance)) + _upstream(instance, user)
        case CycleState.READY:
            return frozen + _switched_off(instance) + ([] if frozen else _no_room(instance))
        case CycleState.RUNNING if instance.stopping:
            return [_stopping(instance)]
        case CycleState.RUNNING:
            return _nodes_that_wait(instance)
        case _:
            return ([_held(instance)] if instance.is_held else []) + _ended(instance, user)


def failure_in_words(instance: CycleInstance, troubles: Sequence[NodeRun]) -> str:
    """Why `instance` did not succeed, as plain text: what its nodes say of themselves, else its own reason."""
    said = [f"{run.node.key}: {error}" for run in troubles if (error := _error_of(run))]
    return " ".join(said) or in_words(instance.reason)


def _error_of(run: NodeRun) -> str:
    """What a node of `detail_queries.troubles_of` was heard to fail of last."""
    return in_words(run.error or run.reason)


# --- a cycle instance that has not begun -------------------------------------------------------------


def _frozen(instance: CycleInstance) -> Cause:
    words: dict[str, Any] = {
        # What was done to it stands further down on its page.
        "frozen": anchor("#journal", _("Frozen")),
        "who": actor_in_words(instance.frozen_by),
        "when": when(instance.frozen_at),
        "why": instance.frozen_reason,
        "holder": _holder(instance.holder),
    }
    if instance.holder:
        text = _("%(frozen)s by %(who)s at %(when)s for %(holder)s, which alone can unfreeze it: %(why)s")
    elif instance.frozen_reason:
        text = _("%(frozen)s by %(who)s at %(when)s: %(why)s")
    else:
        text = _("%(frozen)s by %(who)s at %(when)s.")
    return _cause("frozen", text, state="frozen", **words)


def _held(instance: CycleInstance) -> Cause:
    text = _(
        "%(holder)s is about to rerun it. Until that succeeded, what waits for this cycle goes on waiting."
    )
    holder = instance.cycle.holder
    return _cause("held", text, state="waiting", holder=_holder(holder, capital=True))


def _holder(holder: str, *, capital: bool = False) -> SafeString | str:
    """`rerun:12` as a link, where there is a page for it."""
    kind, _colon, pk = holder.partition(":")
    if kind == "rerun" and pk.isdigit():
        name = of_holder(holder)
        return page_link("rerun-detail", int(pk), name.capitalize() if capital else name)
    return holder


def _switched_off(instance: CycleInstance) -> list[Cause]:
    workflow = instance.workflow
    if workflow.enabled or instance.run_type != RunType.ONLINE:
        return []
    text = _("Workflow %(workflow)s is switched off, since %(when)s.")
    link = page_link("workflow-detail", workflow.pk, workflow.name)
    return [_cause("switched_off", text, state="disabled", workflow=link, when=when(workflow.paused_at))]


def _not_due(instance: CycleInstance) -> list[Cause]:
    if instance.due:
        return []
    if instance.backfill_id is not None and instance.due_at is None:
        return [_turn(instance)]
    if instance.due_at is None or instance.due_at <= timezone.now():
        return [_cause("scheduler", _("Its time has come; the scheduler is about to look at it."))]
    text = _("Its time comes at %(when)s, %(away)s, by the schedule of %(workflow)s.")
    away = words_of_time.relative(instance.due_at, timezone.now())
    words: dict[str, Any] = {"when": when(instance.due_at), "away": away}
    return [_cause("time", text, state="waiting", workflow=_schedule(instance.workflow), **words)]


def _schedule(workflow: Workflow) -> SafeString:
    """A workflow, as a link to when its cycles are."""
    return anchor(f"{reverse('workflow-detail', args=[workflow.pk])}#next", workflow.name)


def _turn(instance: CycleInstance) -> Cause:
    backfill: Any = instance.backfill
    words: dict[str, Any] = {
        "backfill": page_link("backfill-detail", backfill.pk, _("backfill %d") % backfill.pk)
    }
    if backfill.state == BackfillState.PAUSED:
        return _cause(
            "turn", _("Waits for its turn in %(backfill)s, which is paused."), state="waiting", **words
        )
    text = ngettext(
        "Waits for its turn in %(backfill)s, which runs %(count)s cycle at once.",
        "Waits for its turn in %(backfill)s, which runs %(count)s cycles at once.",
        backfill.parallelism,
    )
    return _cause("turn", text, state="waiting", **words, count=backfill.parallelism)


def _upstream(instance: CycleInstance, user: User) -> list[Cause]:
    if not instance.waits_for_upstream:
        return []
    unmet, count = ask.unmet_upstreams(instance, NAMED)
    blocked_by = _("Blocked by %(cycle)s: %(how)s")
    causes = [_of_upstream(cycle, user, blocked_by) for cycle in unmet]
    if count > len(unmet):
        more = ngettext(
            "And for %(link)s that has not succeeded.",
            "And for %(link)s that have not succeeded.",
            count - len(unmet),
        )
        label = ngettext("%d more upstream cycle", "%d more upstream cycles", count - len(unmet))
        address = f"{reverse('cycle-detail', args=[instance.pk])}?view=related"
        link = anchor(address, label % (count - len(unmet)))
        causes.append(_cause("upstream", more, state="waiting", link=link, said=(count,)))
    return causes + _roots(instance, {cycle.pk for cycle in unmet}, user)


def _roots(instance: CycleInstance, named: Set[int], user: User) -> list[Cause]:
    """The cycles at which the chains of waiting cycles end, those left out that are `named` already."""
    roots = ask.root_causes([instance.cycle_id]).get(instance.cycle_id, [])
    further = [cycle for cycle in roots if cycle.pk not in named]
    seen = [cycle for cycle in further if sees(user, cycle.workflow.team_id)]
    root_cause = _("Root cause: %(cycle)s, %(how)s")
    causes = [_of_upstream(cycle, user, root_cause, kind="root") for cycle in seen[:ROOTS_NAMED]]
    if further and not seen:
        text = _("The root cause is further upstream, in a workflow that you cannot see.")
        causes.append(_cause("root", text, state="waiting"))
    return causes


def _of_upstream(cycle: Cycle, user: User, text: str, kind: str = "upstream") -> Cause:
    """A cycle that has not succeeded and how it stands, put into `text`."""
    name = cycle_name(cycle)
    if not sees(user, cycle.workflow.team_id):
        name = f"{cycle.workflow.team.name}/{name}"
    effective: CycleInstance | None = cycle.effective
    if effective is None:
        named = SafeString(f"<b>{escape(name)}</b>")
        if sees(user, cycle.workflow.team_id):
            named = page_link("workflow-detail", cycle.workflow_id, name)
        return _cause(kind, text, state="not_ready", cycle=named, how=_why_not_generated(cycle))
    state = "frozen" if effective.is_frozen else effective.state
    link = cycle_link(effective, name, user)
    return _cause(kind, text, state=state, said=(effective.pk,), cycle=link, how=_how(cycle, effective))


def _how(cycle: Cycle, effective: CycleInstance) -> SafeString:
    """How a cycle stands that has not succeeded, in the middle of a sentence."""
    if cycle.holder:
        return _put(_("%(holder)s will rerun this cycle"), holder=_holder(cycle.holder))
    why = in_words(effective.reason)
    match effective.state:
        case CycleState.FAILED:
            return _put(_("failed at %(when)s: %(why)s"), when=when(effective.ended_at), why=why)
        case CycleState.TERMINATED:
            return _put(_("terminated at %(when)s: %(why)s"), when=when(effective.ended_at), why=why)
        case CycleState.RUNNING:
            return _put(_("running since %(when)s"), when=when(effective.started_at))
        case CycleState.READY:
            return _put(_("ready since %(when)s, not started yet"), when=when(effective.ready_at))
        case _ if effective.is_frozen:
            return _put(_("frozen by %(who)s"), who=actor_in_words(effective.frozen_by))
        case _ if not cycle.workflow.enabled and effective.run_type == RunType.ONLINE:
            return _put(_("its workflow is switched off"))
        case _ if not effective.due and effective.due_at is not None:
            return _put(_("its time comes at %(when)s"), when=when(effective.due_at))
        case _:
            return _put(_("not ready, blocked by its own upstream"))


def _why_not_generated(cycle: Cycle) -> str:
    workflow = cycle.workflow
    if not workflow.enabled:
        return _("not generated, its workflow is switched off")
    if workflow.mode != Mode.ONLINE:
        return _("not generated, its workflow is offline")
    if workflow.generated_until is not None and workflow.generated_until >= cycle.cycle_time:
        return _("never ran; a backfill of its workflow can run it")
    return _("not generated yet")


def _no_room(instance: CycleInstance) -> list[Cause]:
    limit = instance.workflow.current.parallelism
    takers = ask.taking_room(instance, NAMED) if limit else []
    if not limit or len(takers) < min(limit, NAMED):
        ahead = ask.before_it(instance)
        if not ahead:
            return [_cause("scheduler", _("There is room; it is about to begin."))]
        text = ngettext(
            "%(count)s older cycle of its workflow begins first.",
            "%(count)s older cycles of its workflow begin first.",
            ahead,
        )
        return [_cause("room", text, state="waiting", count=ahead)]
    names = ", ".join(anchor(address_of(each), instance_name(each)) for each in takers)
    text = ngettext(
        "Its workflow runs %(limit)s cycle at once, and %(takers)s takes the room.",
        "Its workflow runs %(limit)s cycles at once, and these take the room: %(takers)s",
        limit,
    )
    more = ", …" if limit > len(takers) else ""
    return [_cause("room", text, state="waiting", limit=limit, takers=SafeString(names + more))]


# --- one that has ------------------------------------------------------------------------------------


def _ended(instance: CycleInstance, user: User) -> list[Cause]:
    troubles = ask.troubles_of([instance]).get(instance.pk, [])
    if not troubles:
        [reason] = linked([in_words(instance.reason)], user)
        return [_cause("reason", "%(reason)s", reason=reason)] if reason else []
    errors = linked([_error_of(run) for run in troubles], user)
    return [_trouble(instance, run, error) for run, error in zip(troubles, errors, strict=True)]


def _trouble(instance: CycleInstance, run: NodeRun, error: SafeString) -> Cause:
    node = anchor(node_address(instance, run.node.key), run.node.key)
    text = _("%(node)s did not succeed: %(why)s") if error else _("%(node)s did not succeed.")
    return _cause("node", text, state=run.state, node=node, why=error)


def _stopping(instance: CycleInstance) -> Cause:
    left = ask.unconfirmed(instance)
    text = ngettext(
        "It is being stopped (%(why)s). %(count)s batch has not confirmed that yet: %(nodes)s",
        "It is being stopped (%(why)s). %(count)s batches have not confirmed that yet: %(nodes)s",
        len(left),
    )
    why = in_words(instance.reason) or str(Stopping(instance.stopping).label)
    return _cause("stopping", text, state="terminating", why=why, count=len(left), nodes=_nodes(instance, left))


def _nodes_that_wait(instance: CycleInstance) -> list[Cause]:
    """What holds up nodes that have begun; those of one group wait for the same."""
    together: dict[tuple[int, bool], list[NodeRun]] = {}
    for run in ask.waiting_batches(instance):
        if run.batch is not None:
            together.setdefault((run.batch.group_id, run.batch.held), []).append(run)
    causes = []
    for runs in list(together.values())[:GROUPS_NAMED]:
        nodes = _nodes(instance, runs)
        causes += [_of_batch(each, _("%(nodes)s: %(why)s"), nodes=nodes) for each in _batch_whys(runs[0])]
    return causes


def _batch_whys(run: NodeRun) -> list[scheduling_why.Why]:
    return scheduling_why.of_batch(run.batch) if run.batch is not None else []


def _of_batch(why: scheduling_why.Why, text: str, **words: Any) -> Cause:
    said = escape(why.text)
    if why.link:
        said = SafeString(f"{said} {anchor(why.link, why.label)}")
    return _cause("batch", text, state="waiting", why=said, **words)


# --- a node ------------------------------------------------------------------------------------------


def of_node(
    run: NodeRun, runs: Sequence[NodeRun], instance: CycleInstance, typical: Mapping[str, timedelta]
) -> list[Cause]:
    """Why the node of `run` waits, or did not succeed, given all `runs` of its instance.

    `typical`: how long the nodes of the workflow usually take, by key.
    """
    match run.state:
        case NodeRunState.WAITING if instance.state != CycleState.RUNNING:
            return [_cause("cycle", _("Its cycle instance has not begun."))]
        case NodeRunState.WAITING:
            return _waiting_node(run, runs, instance, typical)
        case NodeRunState.RUNNING if run.batch is not None:
            found = [_of_batch(why, "%(why)s") for why in _batch_whys(run)]
            late = [_cause("time_out", in_words(run.reason))] if run.timed_out else []
            return late + found
        case NodeRunState.SUCCESS:
            return []
        case _:
            reasons = list(dict.fromkeys(filter(None, [in_words(run.reason), *_judged(run)])))
            return [_cause("reason", "%(reason)s", reason=each) for each in reasons]


def _judged(run: NodeRun) -> list[str]:
    if run.state == NodeRunState.CONDITION_NOT_MET:
        return []
    return [why.text for why in _batch_whys(run) if why.text]


def _waiting_node(
    run: NodeRun, runs: Sequence[NodeRun], instance: CycleInstance, typical: Mapping[str, timedelta]
) -> list[Cause]:
    by_id = {str(each.node_id): each for each in runs}
    graph = graph_of(instance.revision_id).without({key for key, each in by_id.items() if each.carried})
    ended = {key: Ended(each.state, each.result) for key, each in by_id.items() if each.is_finished}
    if graph.decide(str(run.node_id), ended) == Decision.START:
        return [_node_limit(instance, runs)]
    waited = [edge for edge in graph.incoming[str(run.node_id)] if edge.source not in ended]
    return [
        _of_edge(edge, by_id[edge.source], instance, typical, _running_above(graph, by_id, edge))
        for edge in waited
    ]


def _running_above(graph: Graph, by_id: Mapping[str, NodeRun], edge: Edge) -> list[NodeRun]:
    """The running nodes at which the chain of waiting nodes above `edge` ends."""
    found: dict[str, NodeRun] = {}
    walked, ahead = set[str](), [edge.source]
    while ahead:
        node = ahead.pop()
        if node in walked:
            continue
        walked.add(node)
        if by_id[node].state == NodeRunState.RUNNING:
            found[node] = by_id[node]
        elif not by_id[node].is_finished:
            ahead += [above.source for above in graph.incoming[node]]
    return sorted(found.values(), key=lambda run: run.node.number)


def _nodes(instance: CycleInstance, runs: Sequence[NodeRun]) -> SafeString:
    """The first nodes of `runs`, each a link to it."""
    named = [anchor(node_address(instance, run.node.key), run.node.key) for run in runs[:NAMED]]
    return SafeString(", ".join([*named, "…"] if len(runs) > NAMED else named))


def _node_limit(instance: CycleInstance, runs: Iterable[NodeRun]) -> Cause:
    running = [run for run in runs if run.state == NodeRunState.RUNNING]
    if not instance.node_parallelism:
        return _cause("node", _("It is about to begin."))
    text = ngettext(
        "This rerun runs %(limit)s node at once, and this runs: %(nodes)s",
        "This rerun runs %(limit)s nodes at once, and these run: %(nodes)s",
        instance.node_parallelism,
    )
    return _cause("limit", text, limit=instance.node_parallelism, nodes=_nodes(instance, running))


def _of_edge(
    edge: Edge,
    source: NodeRun,
    instance: CycleInstance,
    typical: Mapping[str, timedelta],
    running_above: Sequence[NodeRun],
) -> Cause:
    key = source.node.key
    words: dict[str, Any] = {"node": anchor(node_address(instance, key), key)}
    usually = typical.get(key)
    if source.state != NodeRunState.RUNNING and running_above:
        text = _("Blocked by %(node)s, which waits for %(roots)s.")
        words["roots"] = _nodes(instance, running_above)
    elif source.state != NodeRunState.RUNNING:
        text = _("Blocked by %(node)s, which has not started.")
    elif source.ran_at is None:
        text = _("Blocked by %(node)s, queued since %(when)s.")
    elif usually is not None:
        text = _("Blocked by %(node)s, running since %(when)s (usually for %(usually)s).")
        words["usually"] = duration(usually)
    else:
        text = _("Blocked by %(node)s, running since %(when)s.")
    words["when"] = when(source.ran_at or source.started_at)
    return _cause("node", text, state=source.state, said=(edge.source,), **words)


# --- words -------------------------------------------------------------------------------------------

# What changes by itself as time passes; the moments that it is reckoned from are among the other words.
_CLOCKS = frozenset({"usually", "away"})


def _put(text: str, **words: Any) -> SafeString:
    """`text` with its words put in, each escaped unless it is markup of ours."""
    return SafeString(escape(text) % {name: conditional_escape(word) for name, word in words.items()})


def _cause(kind: str, text: str, *, state: str = "", said: tuple[Any, ...] = (), **words: Any) -> Cause:
    told = tuple(str(word) for name, word in words.items() if name not in _CLOCKS)
    return Cause(kind, _put(text, **words), state, (*said, *told))
