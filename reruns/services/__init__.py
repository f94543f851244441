"""What people ask of reruns downstream, in their words. Each call is whole: all of it or nothing.

As in scheduling, every service takes `by=`, and what acts takes `reason=` and writes the journal. All are
usable as they stand from `manage.py shell`:

    >>> repair = reruns.services.plan(CycleInstance.objects.get(pk=4711), downstream="all", freeze_mode=True)
    >>> print(reruns.services.plan_of(repair))
    >>> reruns.services.submit(repair, reason="the weather of nine o'clock was wrong")
"""

from reruns.plans import plan_of
from reruns.services.advancing import advance, advance_due
from reruns.services.drafts import (
    Ticks,
    change,
    choose,
    choose_nodes,
    discard,
    plan,
    save_settings,
    set_freeze_mode,
)
from reruns.services.housekeeping import free_stranded
from reruns.services.running import pause, resume, take_content, take_out, terminate
from reruns.services.submitting import submit

__all__ = [
    "Ticks",
    "advance",
    "advance_due",
    "change",
    "choose",
    "choose_nodes",
    "discard",
    "free_stranded",
    "pause",
    "plan",
    "plan_of",
    "resume",
    "save_settings",
    "set_freeze_mode",
    "submit",
    "take_content",
    "take_out",
    "terminate",
]
