"""The sentences of workflows that are kept with records; see scheduling.reasons."""

from django.utils.translation import gettext_noop

from scheduling.reasons import recognise

BRANCH_NOT_TAKEN = gettext_noop("Its branch was not taken: %(edges)s")
CORE_FAILED = gettext_noop("Did not succeed: %(nodes)s")
NODE_FAILED = gettext_noop("Node %(node)s did not succeed: %(why)s")
NODES_FAILED = gettext_noop("Nodes %(nodes)s did not succeed; %(node)s: %(why)s")
CYCLE_STOPPED = gettext_noop("The cycle instance was stopped by %(who)s")
CYCLE_STOPPED_WHY = gettext_noop("The cycle instance was stopped by %(who)s: %(why)s")
CYCLE_TIMED_OUT = gettext_noop("The cycle instance went on after its time-out of %(seconds)s s")
NODE_TIMED_OUT = gettext_noop("The node went on after its time-out of %(seconds)s s")
STOPPED_ON_FAILURE = gettext_noop("Stopped because a node failed. %(why)s")
MARKED_SUCCESS = gettext_noop("Marked as a success by %(who)s: %(why)s")
SCHEDULE_CHANGED = gettext_noop("The workflow's schedule has no such cycle any more")
SWITCHED_OFFLINE = gettext_noop("The workflow is offline now")
MISSED = gettext_noop("Missed while the workflow was switched off; its misfire policy is to skip")
MISSED_BUT_LATEST = gettext_noop(
    "Missed while the workflow was switched off; its misfire policy is to run once"
)
MISFIRED = gettext_noop(
    "No scheduler made it due within %(seconds)s s of its time; the misfire policy is to skip"
)
MISFIRED_BUT_LATEST = gettext_noop(
    "No scheduler made it due within %(seconds)s s of its time; the misfire policy is to run once"
)
BACKFILL_ENDED = gettext_noop("Backfill %(batch)s was terminated")
PAUSED_ON_FAILURE = gettext_noop("Cycle instance %(cycle)s did not succeed, and the backfill pauses on failure")


def nodes_named(reason: str) -> frozenset[str]:
    """The keys of the nodes that a stored reason names as those that did not succeed; none for any other."""
    found = recognise(reason)
    if found is None:
        return frozenset()
    if found.template == NODE_FAILED:
        return frozenset({found.parameters["node"]})
    if found.template in {CORE_FAILED, NODES_FAILED}:
        return frozenset(found.parameters["nodes"].split(", "))
    return frozenset()
