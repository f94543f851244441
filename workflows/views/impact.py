"""What an action on a cycle instance will hit, in sentences that the confirm step shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling.views.actions import Option
from workflows import detail_queries as ask
from workflows.models import CycleInstance, RunType
from workflows.states import CycleState

# How many instances one sentence names.
NAMED = 3


def of_stopping(instance: CycleInstance) -> list[str]:
    """How many nodes never begin, are told to end, or stay as they ended, and who goes on waiting."""
    if instance.state != CycleState.RUNNING:
        effects = [_("It has not begun, and never will.")]
        if instance.is_frozen:
            effects.append(_("It is frozen; stopping it lifts that."))
        return effects + _still_waiting(instance)
    counts = ask.nodes_by_state(instance)
    waiting, running = counts.get("waiting", 0), counts.get("running", 0)
    ended = sum(counts.values()) - waiting - running
    sentences = [
        (
            running,
            ngettext(
                "%d node runs: its batch is told to end, and the cycle instance ends when it has.",
                "%d nodes run: their batches are told to end, and the cycle instance ends when they have.",
                running,
            ),
        ),
        (waiting, ngettext("%d waiting node never begins.", "%d waiting nodes never begin.", waiting)),
        (
            ended,
            ngettext(
                "%d node has ended and stays as it is.", "%d nodes have ended and stay as they are.", ended
            ),
        ),
    ]
    return [text % count for count, text in sentences if count] + _still_waiting(instance)


def earlier_successes(instances: Iterable[CycleInstance]) -> dict[int, int]:
    """The run that is effective again when an instance does not succeed; see `ask.successes_until`.

    Run numbers by id of the instance; instances without such a run are left out.
    """
    effective = {
        each.cycle_id: each
        for each in instances
        if each.run_type != RunType.TEST and each.cycle.effective_id == each.pk
    }
    found = ask.successes_until({cycle: each.number - 1 for cycle, each in effective.items()})
    return {effective[cycle].pk: number for cycle, number in found.items()}


def discards_earlier(instances: Sequence[CycleInstance]) -> Option | None:
    """The choice whether earlier results become effective again; None when there are none."""
    earlier = earlier_successes(instances)
    if not earlier:
        return None
    ticked = all(each.discards_earlier for each in instances if each.pk in earlier)
    return Option("discards_earlier", discard_label(len(earlier)), ticked=ticked)


def discard_label(count: int) -> str:
    """The choice to discard so many earlier results."""
    return ngettext(
        "Discard the earlier result: downstream cycles wait until a new run succeeds",
        "Discard the earlier results: downstream cycles wait until new runs succeed",
        count,
    )


def _effective_again(number: int, instance: CycleInstance) -> str:
    if not number:
        return _("An earlier run succeeded. Its result becomes effective again, and downstream cycles use it.")
    if instance.discards_earlier:
        text = _("Run %(number)d succeeded and was to be discarded. Untick the box to make it effective again.")
    else:
        text = _("Run %(number)d succeeded. It becomes effective again, and downstream cycles use its result.")
    return text % {"number": number}


def _still_waiting(instance: CycleInstance) -> list[str]:
    earlier = earlier_successes([instance]).get(instance.pk)
    if earlier is not None:
        return [_effective_again(earlier, instance)]
    waiting = _dependants(instance)
    if not waiting:
        return []
    text = ngettext(
        "%d downstream cycle goes on waiting, until a rerun succeeds or this is marked as a success.",
        "%d downstream cycles go on waiting, until a rerun succeeds or this is marked as a success.",
        waiting,
    )
    return [text % waiting]


def _dependants(instance: CycleInstance) -> int:
    """How many downstream cycles look at the result of this instance; none do at a test's or an old run's."""
    if instance.run_type == RunType.TEST or instance.cycle.effective_id != instance.pk:
        return 0
    return ask.around(instance).downstream


def of_marking(instance: CycleInstance) -> list[str]:
    """What stays as it is, and who goes on."""
    counts = ask.nodes_by_state(instance)
    failed = sum(counts.get(state, 0) for state in ("failed", "timed_out", "terminated"))
    effects = [_("Nothing runs. The cycle instance counts as a success from now on.")]
    if failed:
        text = ngettext(
            "%d node that did not succeed stays as it ended; whatever it should have made is not there.",
            "%d nodes that did not succeed stay as they ended; whatever they should have made is not there.",
            failed,
        )
        effects.append(text % failed)
    if instance.run_type != RunType.TEST and instance.cycle.effective_id != instance.pk:
        effects.append(_("Another run of the cycle is effective now. Afterwards the newest success is."))
    waiting = ask.waiting_dependants(instance) if _dependants(instance) else 0
    if waiting:
        text = ngettext(
            "%d downstream cycle that waits goes on, if it waits for nothing else.",
            "%d downstream cycles that wait go on, if they wait for nothing else.",
            waiting,
        )
        effects.append(text % waiting)
    return effects


def of_freezing(instance: CycleInstance) -> list[str]:
    """Who waits with it."""
    effects = [_("It does not begin until somebody unfreezes it, whatever its time and its upstream cycles.")]
    waiting = _dependants(instance)
    if waiting:
        text = ngettext("%d downstream cycle waits with it.", "%d downstream cycles wait with it.", waiting)
        effects.append(text % waiting)
    return effects


def of_unfreezing(instance: CycleInstance) -> list[str]:
    """Whether it goes on at once."""
    if instance.state == CycleState.READY:
        return [_("It begins as soon as the workflow's parallelism lets it.")]
    if not instance.due:
        return [_("It goes on waiting for its time.")]
    _first, unmet = ask.unmet_upstreams(instance, 1) if instance.waits_for_upstream else ([], 0)
    if not unmet:
        return [_("It becomes ready, and begins as soon as the workflow's parallelism lets it.")]
    text = ngettext(
        "It goes on waiting for %d upstream cycle.", "It goes on waiting for %d upstream cycles.", unmet
    )
    return [text % unmet]


def of_readers(instances: Sequence[CycleInstance]) -> list[str]:
    """Who reads the results of `instances` now, and so misses those of their reruns."""
    cycles = [each.cycle_id for each in instances if each.run_type != RunType.TEST]
    running, held = ask.readers_of(cycles)
    sentences = [
        (
            running,
            ngettext(
                "%(count)d downstream cycle runs now with the old result: %(names)s. Rerun it afterwards.",
                "%(count)d downstream cycles run now with the old result: %(names)s. Rerun them afterwards.",
                len(running),
            ),
        ),
        (
            held,
            ngettext(
                "%(count)d downstream cycle waits in a rerun downstream and may begin earlier: %(names)s.",
                "%(count)d downstream cycles wait in a rerun downstream and may begin earlier: %(names)s.",
                len(held),
            ),
        ),
    ]
    return [text % {"count": len(names), "names": _some(names)} for names, text in sentences if names]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def of_rerunning(instance: CycleInstance) -> list[str]:
    """What a rerun makes, and what it does not."""
    effects = [
        _("Run %(number)d of this cycle begins. The ticked nodes run; the others are carried as they ended.")
        % {"number": ask.newest_number(instance) + 1}
    ]
    if instance.run_type == RunType.TEST:
        return [*effects, _("It is a test again: it replaces no result of the cycle.")]
    if instance.is_replaced:
        effects.append(_("Another run of the cycle is the effective one; its result is replaced too."))
    effects.append(_("Downstream cycles that have not begun wait for its result; earlier runs are kept."))
    if instance.cycle.succeeded:
        effects.append(_("If it does not succeed, the earlier result becomes effective again."))
    effects += of_readers([instance])
    downstream = ask.around(instance).downstream
    if downstream:
        text = ngettext(
            "%d downstream cycle depends on it. What has run there already does not run again by this.",
            "%d downstream cycles depend on it. What has run there already does not run again by this.",
            downstream,
        )
        effects.append(text % downstream)
    return effects
