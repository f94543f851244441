"""The sentences of reruns that are kept with records; see scheduling.reasons."""

from django.utils.translation import gettext_noop

RERUN_SUCCEEDED = gettext_noop("Rerun downstream %(batch)s succeeded")
RERUN_TERMINATED = gettext_noop("Rerun downstream %(batch)s was terminated")
STOPPED_TO_RERUN = gettext_noop("Stopped to be rerun by rerun downstream %(batch)s")
TAKEN_OUT = gettext_noop("Taken out by %(who)s")
TAKEN_OUT_WHY = gettext_noop("Taken out by %(who)s: %(why)s")
DROPPED = gettext_noop("Its instance ended although it was frozen: %(why)s")
NOT_PERMITTED = gettext_noop("Not to be rerun any more by %(who)s: %(nodes)s")
NOBODY_RESPONSIBLE = gettext_noop(
    "The account that was responsible for the rerun is gone; somebody who may rerun it can resume it"
)
NOT_GENERATED = gettext_noop("It cannot be rerun: %(error)s")
REPAIRED = gettext_noop("What had failed was repaired")
HELD_BY_NOBODY = gettext_noop("Rerun downstream %(batch)s is gone or has ended, and keeps nothing any more")
