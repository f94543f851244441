"""What people ask of reruns downstream, in their words. Each call is whole: all of it or nothing.

As in scheduling, every service takes `by=`, and what acts takes `reason=` and writes the journal. All are
usable as they stand from `manage.py shell`:

    >>> repair = reruns.services.plan(CycleInstance.objects.get(pk=4711), downstream="all", freeze_mode=True)
    >>> print(reruns.services.plan_of(repair))
"""

from reruns.plans import plan_of
from reruns.services.drafts import choose, choose_nodes, discard, plan, save_settings, set_freeze_mode

__all__ = [
    "choose",
    "choose_nodes",
    "discard",
    "plan",
    "plan_of",
    "save_settings",
    "set_freeze_mode",
]
