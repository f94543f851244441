"""Drafts: what is chosen is stored with every tick, so that a closed browser loses nothing.

However many cycles a call is about, it takes the same few statements. Nothing here touches a cycle, and nothing
is written in the journal: a draft becomes somebody else's business only when it is submitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils.translation import gettext as _

from config import clock
from reruns import choices, notifications, permissions
from reruns.affected import very_many
from reruns.candidates import Candidate
from reruns.eligibility import NOT_DOWNSTREAM, Refusal, in_part, unknown_nodes
from reruns.errors import RerunRefused
from reruns.models import Action, OnFailure, Rerun, RerunItem
from reruns.plans import Plan, Selected, plan_of
from reruns.situation import asker, situation_of, source_refusal
from scheduling import bulk, journal, validation
from scheduling.clocks import by_clock
from scheduling.notifications import clean_rules
from workflows.models import CycleInstance

NAMED = 3


@transaction.atomic
def plan(
    source: CycleInstance,
    *,
    nodes: Iterable[str] | None = None,
    downstream: str | Iterable[CycleInstance] | None = None,
    freeze_mode: bool = False,
    by: journal.By = None,
    **settings: Any,
) -> Rerun:
    """Plan a rerun of everything downstream of `source`, and save it as a draft; nothing runs before `submit`.

    `nodes` are the keys of the source's nodes to rerun; left out: what did not succeed, else all. `downstream`
    is "all" (whatever can be chosen), or the instances to choose; left out: none as yet. `freeze_mode` admits
    instances that have not ended: they are terminated and rerun, and those not ready are frozen. `settings` are
    those of `save_settings`. Raises RerunRefused when the rerun cannot begin at `source`, or an instance or a
    node cannot be chosen.
    """
    source = CycleInstance.objects.select_related("workflow__revision", "revision").get(pk=source.pk)
    who, now = journal.actor(by), clock.now()
    rerun = Rerun(
        team_id=source.team_id,
        source=source,
        name=source.stored_name,
        freeze_mode=freeze_mode,
        requested_by_id=who.user_id,
        actor=who.name,
        created_at=now,
        changed_at=now,
        **_clean(settings),
    )
    with very_many():
        situation = situation_of(rerun, source.cycle_id, user=asker(by), now=now)
    if refusal := source_refusal(source, situation):
        raise RerunRefused(f"{source.name}: {refusal}")
    rerun.save()
    keys = _source_keys(source, rerun, asker(by)) if nodes is None else list(nodes)
    shown = Plan(rerun, situation, {})
    selection = {source.cycle_id: _selected(shown.source, keys)}
    wanted = {each.cycle_id: _selected(each) for each in _downstream(shown, downstream)}
    selection = wanted | selection
    _store(Plan(rerun, situation, selection), new=selection)
    return rerun


def _downstream(plan: Plan, wanted: str | Iterable[CycleInstance] | None) -> list[Candidate]:
    """The candidates that somebody asks for in words or by naming instances."""
    if wanted == "all":
        return [each for each in plan.candidates if each.refusal is None]
    if isinstance(wanted, str):
        raise ValueError(f'downstream is "all" or instances, not {wanted!r}')
    return _known(plan, [each.cycle_id for each in wanted or ()], skip_refused=False)


def _source_keys(source: CycleInstance, rerun: Rerun, user: Any) -> list[str]:
    found = choices.source_nodes(source, user=user, as_it_ran=rerun.as_it_ran)
    return [each.key for each in found if each.proposed] or [each.key for each in found if each.permitted]


# --- choosing ------------------------------------------------------------------------------------------


class Ticks(NamedTuple):
    """What is chosen in a draft and what is left out: ids of cycles.

    `skip_refused` leaves out of `on` those that cannot be chosen, which else are refused. The source stays in.
    """

    on: Iterable[int] = ()
    off: Iterable[int] = ()
    skip_refused: bool = True


@transaction.atomic
def change(rerun: Rerun, pick: Callable[[Plan], Ticks], *, by: journal.By = None) -> Plan:
    """Choose and leave out what `pick` names, given the plan of the locked draft; returns the new plan.

    The cycles are read once for both plans. Raises RerunRefused, which names them, when some cannot be chosen.
    """
    shown = _edited(rerun, by)
    ticks = pick(shown)
    gone = (set(ticks.off) & shown.selection.keys()) - {shown.source.cycle_id}
    new = {
        each.cycle_id: _selected(each)
        for each in _known(shown, ticks.on, skip_refused=ticks.skip_refused)
        if not each.chosen
    }
    kept = {cycle: each for cycle, each in shown.selection.items() if cycle not in gone}
    return _store(Plan(shown.rerun, shown.situation, kept | new), new=new, gone=gone)


def choose(
    rerun: Rerun,
    cycles: Iterable[int],
    chosen: bool = True,
    *,
    skip_refused: bool = False,
    by: journal.By = None,
) -> Plan:
    """Choose cycles (ids) for a draft with all nodes that may be rerun, or with `chosen=False` leave them out.

    Returns the new plan. Raises RerunRefused, which names them, when some cannot be chosen, or the source is
    left out; `skip_refused` skips those instead.
    """
    wanted = list(cycles)

    def pick(shown: Plan) -> Ticks:
        if chosen:
            return Ticks(on=wanted, skip_refused=skip_refused)
        if shown.source.cycle_id in wanted and not skip_refused:
            raise RerunRefused(
                _("The source cannot be left out; discard the draft and begin at another instance.")
            )
        return Ticks(off=wanted)

    return change(rerun, pick, by=by)


@transaction.atomic
def choose_nodes(
    rerun: Rerun,
    cycle_id: int,
    keys: Iterable[str] | Callable[[Candidate], Iterable[str]],
    *,
    by: journal.By = None,
) -> Plan:
    """Let a draft rerun these nodes of a cycle, which is chosen by that; its other nodes are carried.

    `keys` may be a function of the candidate as it stands under the lock. Returns the new plan.
    """
    shown = _edited(rerun, by)
    [candidate] = _known(shown, [cycle_id], skip_refused=False)
    new = {cycle_id: _selected(candidate, list(keys(candidate) if callable(keys) else keys))}
    return _store(Plan(shown.rerun, shown.situation, {**shown.selection, **new}), new=new)


def _known(plan: Plan, cycles: Iterable[int], *, skip_refused: bool) -> list[Candidate]:
    """The candidates of these cycles that can be chosen."""
    found: list[Candidate] = []
    refused: list[tuple[str, Refusal]] = []
    for cycle_id in dict.fromkeys(cycles):
        candidate = plan.candidate(cycle_id)
        refusal = NOT_DOWNSTREAM if candidate is None else candidate.refusal
        if candidate is not None and refusal is None:
            found.append(candidate)
        elif refusal is not None:
            refused.append((candidate.name if candidate else f"#{cycle_id}", refusal))
    if refused and not skip_refused:
        raise _cannot(refused)
    return found


def _cannot(refused: Sequence[tuple[str, Refusal]]) -> RerunRefused:
    said = "\n".join(f"{name}: {refusal}" for name, refusal in refused[:NAMED])
    if len(refused) > NAMED:
        said += "\n" + in_part([name for name, _refusal in refused[NAMED:]])
    return RerunRefused(said)


def _selected(candidate: Candidate, keys: Collection[str] | None = None) -> Selected:
    """A candidate as it stands, chosen with the nodes `keys`, or with all that may be rerun."""
    content = candidate.content
    wanted = set(content.permitted if keys is None else keys)
    if unknown := sorted(wanted - {*content.keys}):
        raise RerunRefused(unknown_nodes(candidate.workflow, unknown))
    if not wanted:
        raise RerunRefused(
            _("No node of %(name)s is chosen; choose at least one to rerun.") % {"name": candidate.name}
        )
    nodes = tuple(key for key in content.keys if key in wanted)
    if len(nodes) == len(content.nodes):
        nodes = ()
    elif candidate.action == Action.FREEZE:
        raise RerunRefused(
            _("%(name)s is frozen as a whole; choose all of its nodes.") % {"name": candidate.name}
        )
    if not content.allows(nodes):
        raise RerunRefused(f"{candidate.name}: {content.nodes_refusal(nodes)}")
    return Selected(nodes, candidate.instance_id, candidate.state, candidate.stored_name, candidate.node_total)


# --- settings ------------------------------------------------------------------------------------------


@transaction.atomic
def set_freeze_mode(rerun: Rerun, on: bool, *, by: journal.By = None) -> tuple[Plan, list[str]]:
    """Switch the freeze mode of a draft on or off.

    Returns the new plan, and the names of what only freeze mode admitted, and is dropped. Raises RerunRefused
    when the source itself has not ended, so that it needs freeze mode.
    """
    shown = _edited(rerun, by, freeze_mode=on)
    dropped = {
        cycle: by_clock(shown.selection[cycle].name)
        for cycle, refusal in shown.lost.items()
        if refusal.kind == "freeze_mode"
    }
    if shown.source.cycle_id in dropped:
        raise RerunRefused(f"{shown.source.name}: {shown.source.refusal}")
    kept = {cycle: each for cycle, each in shown.selection.items() if cycle not in dropped}
    plan = _store(Plan(shown.rerun, shown.situation, kept), gone=dropped.keys())
    rerun.freeze_mode = on
    return plan, list(dropped.values())


@transaction.atomic
def save_settings(rerun: Rerun, *, by: journal.By = None, **settings: Any) -> Rerun:
    """Change how a draft will run: whichever of these is given.

    `as_it_ran` (the content of then, else today's), `parameters` (overrides for every instance), `parallelism`
    (instances at once, 0: any number), `node_parallelism` (nodes of an instance at once), `on_failure` ("go_on"
    with other branches, or "stop" generating), `notify` (rules; the events are success, terminated,
    instance_failed and instance_stopped). Raises InvalidDefinition, and RerunRefused when chosen nodes are not
    in the other content.
    """
    shown = _edited(rerun, by, **_clean(settings))
    for cycle_id, selected in shown.selection.items():
        candidate = shown.candidate(cycle_id)
        unknown = sorted({*selected.nodes} - {*candidate.content.keys}) if candidate else []
        if unknown:
            raise RerunRefused(unknown_nodes(by_clock(selected.name), unknown))
    return _store(shown).rerun


def _clean(settings: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Callable[[Any], Any]] = {
        "as_it_ran": bool,
        "parameters": lambda given: validation.clean_parameters(given or {}),
        "parallelism": _number,
        "node_parallelism": _number,
        "on_failure": _on_failure,
        "notify": lambda given: clean_rules(given, events=notifications.EVENTS),
    }
    if unknown := settings.keys() - known.keys():
        raise TypeError(f"a rerun has no setting {', '.join(sorted(unknown))}")
    return {name: known[name](given) for name, given in settings.items()}


def _on_failure(given: Any) -> str:
    if given not in OnFailure.values:
        raise RerunRefused(
            _("When an instance fails a rerun does one of: %(known)s.") % {"known": ", ".join(OnFailure.values)}
        )
    return str(given)


def _number(given: Any) -> int:
    number = int(given) if str(given).isdecimal() else -1
    if not 0 <= number <= MOST_AT_ONCE:
        raise RerunRefused(
            _("How many run at once is a number from 0 (no limit) to %(most)d.") % {"most": MOST_AT_ONCE}
        )
    return number


MOST_AT_ONCE = 10_000


@transaction.atomic
def discard(rerun: Rerun, *, by: journal.By = None) -> None:
    """Throw a draft away. What was submitted is kept as a record, and raises RerunRefused."""
    _locked(rerun, by).delete()


# --- how it is stored ----------------------------------------------------------------------------------


def _locked(rerun: Rerun, by: journal.By) -> Rerun:
    """The draft, locked: two pages on it take turns."""
    found = Rerun.objects.select_for_update(no_key=True).filter(pk=rerun.pk).first()
    if found is None:
        raise RerunRefused(_("This draft is gone; somebody discarded it."))
    if not found.is_draft:
        raise RerunRefused(_("%(rerun)s was submitted; its plan does not change any more.") % {"rerun": found})
    permissions.refuse_editing(found, by)
    return found


def _edited(rerun: Rerun, by: journal.By, **values: Any) -> Plan:
    """The plan of a locked draft, with other settings."""
    found = _locked(rerun, by)
    for name, value in values.items():
        setattr(found, name, value)
    return plan_of(found, user=asker(by))


def _store(plan: Plan, *, new: Mapping[int, Selected] | None = None, gone: Collection[int] = ()) -> Plan:
    """Save a draft as `plan` has it: the cycles `new` were chosen, or chosen otherwise, and `gone` left out."""
    rerun = plan.rerun
    rerun.changed_at = clock.now()
    rerun.save()
    replaced = [*gone, *(new or ())]
    if replaced:
        RerunItem.objects.filter(rerun=rerun.pk, cycle__in=replaced).delete()
    if new:
        bulk.insert([_item(plan, cycle, selected) for cycle, selected in new.items()])
    _reckon(plan)
    return plan


def _item(plan: Plan, cycle_id: int, selected: Selected) -> RerunItem:
    candidate = plan.candidate(cycle_id)
    assert candidate is not None  # noqa: S101 - only candidates are chosen
    return RerunItem(
        rerun_id=plan.rerun.pk,
        cycle_id=cycle_id,
        workflow_id=candidate.workflow_id,
        team_id=candidate.team_id,
        name=selected.name,
        cycle_time=candidate.cycle_time,
        original_id=selected.original_id,
        is_source=candidate.is_source,
        action=candidate.action,
        nodes=list(selected.nodes),
        node_total=candidate.node_total,
        seen_state=selected.seen_state,
        wave=candidate.wave,
        starts_at=candidate.starts,
        ends_at=candidate.ends,
    )


_RECKON = """
UPDATE reruns_rerunitem item
SET action = planned.action, wave = planned.wave, starts_at = planned.starts_at, ends_at = planned.ends_at,
    node_total = planned.node_total
FROM json_to_recordset(%(chosen)s) AS planned (cycle_id bigint, action text, wave int, starts_at float8,
    ends_at float8, node_total int)
WHERE item.rerun_id = %(rerun)s AND item.cycle_id = planned.cycle_id
  AND (item.action, item.wave, item.starts_at, item.ends_at, item.node_total) IS DISTINCT FROM
      (planned.action, planned.wave, planned.starts_at, planned.ends_at, planned.node_total)
"""


def _reckon(plan: Plan) -> None:
    """Write down the order and the times of everything chosen, which any choice may change."""
    # As one text: arrays of very many are adapted entry by entry.
    chosen = [
        {
            "cycle_id": each.cycle_id,
            "action": each.action,
            "wave": each.wave,
            "starts_at": each.starts,
            "ends_at": each.ends,
            "node_total": each.node_total,
        }
        for each in plan.chosen
    ]
    with connection.cursor() as cursor:
        cursor.execute(_RECKON, {"rerun": plan.rerun.pk, "chosen": json.dumps(chosen)})
