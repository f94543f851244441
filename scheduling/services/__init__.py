"""What people and the engine ask of scheduling, in their words. Each call is whole: all of it or nothing.

Every service takes `by=` (a user, a name, or nothing for the operating system's user) and `reason=`, writes
the journal, and is usable as it stands from `manage.py shell`:

    >>> services.stop(Batch.objects.get(pk=4711), reason="wrong input file")
"""

from scheduling.services.batches import (
    BatchRequest,
    Slot,
    create_batches,
    make_batches,
    settle_overlap,
    slots_of,
    trigger,
)
from scheduling.services.bulk import rerun_all, stop_all
from scheduling.services.incidents import disable_group, enable_group
from scheduling.services.judgement import mark, rejudge
from scheduling.services.nodes import drain, give_up_waiting, undrain
from scheduling.services.notifications import notify_again
from scheduling.services.operations import rerun, rerun_instance, stop, stop_instance
from scheduling.services.results import MOST_AT_ONCE, Refused, Result
from scheduling.services.saved import make_default, rename_filter, save_filter
from scheduling.services.several import rerun_instances, stop_instances
from scheduling.services.tasks import SCHEDULE_CHANNEL, content_digest, save_task, set_enabled
from scheduling.services.teams import (
    canonical,
    create_group,
    create_team,
    delete,
    grant,
    granted_on,
    remove_member,
    revoke,
    set_grants,
    set_member,
    settle_staff,
    use_of,
)

__all__ = [
    "MOST_AT_ONCE",
    "SCHEDULE_CHANNEL",
    "BatchRequest",
    "Refused",
    "Result",
    "Slot",
    "canonical",
    "content_digest",
    "create_batches",
    "create_group",
    "create_team",
    "delete",
    "disable_group",
    "drain",
    "enable_group",
    "give_up_waiting",
    "grant",
    "granted_on",
    "make_batches",
    "make_default",
    "mark",
    "notify_again",
    "rejudge",
    "remove_member",
    "rename_filter",
    "rerun",
    "rerun_all",
    "rerun_instance",
    "rerun_instances",
    "revoke",
    "save_filter",
    "save_task",
    "set_enabled",
    "set_grants",
    "set_member",
    "settle_overlap",
    "settle_staff",
    "slots_of",
    "stop",
    "stop_all",
    "stop_instance",
    "stop_instances",
    "trigger",
    "undrain",
    "use_of",
]
