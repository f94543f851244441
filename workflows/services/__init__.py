"""What people and the engine ask of workflows, in their words. Each call is whole: all of it or nothing.

As in scheduling, every service takes `by=` and `reason=`, writes the journal, and is usable as it stands from
`manage.py shell`:

    >>> services.rerun(CycleInstance.objects.get(pk=4711), nodes=["clean", "load"], reason="the file was late")
"""

from workflows.services.backfills import (
    Candidate,
    backfill,
    pause_backfill,
    plan_backfill,
    resume_backfill,
    terminate_backfill,
)
from workflows.services.definitions import save_workflow, set_enabled
from workflows.services.deleting import delete_workflow, use_of
from workflows.services.generation import generate, generate_due
from workflows.services.operations import (
    Pinned,
    choice_for_rerun,
    choice_of,
    freeze,
    mark_success,
    rerun,
    rerun_locked,
    run_test,
    stop,
    unfreeze,
)
from workflows.services.several import freeze_all, mark_success_all, rerun_all, stop_all, unfreeze_all

__all__ = [
    "Candidate",
    "Pinned",
    "backfill",
    "choice_for_rerun",
    "choice_of",
    "delete_workflow",
    "freeze",
    "freeze_all",
    "generate",
    "generate_due",
    "mark_success",
    "mark_success_all",
    "pause_backfill",
    "plan_backfill",
    "rerun",
    "rerun_all",
    "rerun_locked",
    "resume_backfill",
    "run_test",
    "save_workflow",
    "set_enabled",
    "stop",
    "stop_all",
    "terminate_backfill",
    "unfreeze",
    "unfreeze_all",
    "use_of",
]
