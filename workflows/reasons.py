"""The sentences of workflows that are kept with records; see scheduling.reasons."""

from django.utils.translation import gettext_noop

BRANCH_NOT_TAKEN = gettext_noop("Its branch was not taken: %(edges)s")
CORE_FAILED = gettext_noop("Did not succeed: %(nodes)s")
CYCLE_STOPPED = gettext_noop("The cycle instance was stopped by %(who)s")
CYCLE_STOPPED_WHY = gettext_noop("The cycle instance was stopped by %(who)s: %(why)s")
CYCLE_TIMED_OUT = gettext_noop("The cycle instance went on after its time-out of %(seconds)s s")
NODE_TIMED_OUT = gettext_noop("The node went on after its time-out of %(seconds)s s")
STOPPED_ON_FAILURE = gettext_noop("Stopped because a node failed: %(nodes)s")
MARKED_SUCCESS = gettext_noop("Marked as a success by %(who)s: %(why)s")
SCHEDULE_CHANGED = gettext_noop("The workflow's schedule has no such cycle any more")
SWITCHED_OFFLINE = gettext_noop("The workflow is offline now")
MISSED = gettext_noop("Missed while the workflow was switched off; its misfire policy is to skip")
MISSED_BUT_LATEST = gettext_noop(
    "Missed while the workflow was switched off; its misfire policy is to run once"
)
BACKFILL_ENDED = gettext_noop("Backfill %(batch)s was terminated")
PAUSED_ON_FAILURE = gettext_noop("Cycle instance %(cycle)s did not succeed, and the backfill pauses on failure")
