"""What people and the engine ask of scheduling, in their words. Each call is whole: all of it or nothing.

Every service takes `by=` (a user, a name, or nothing for the operating system's user) and `reason=`, writes
the journal, and is usable as it stands from `manage.py shell`:

    >>> services.stop(Batch.objects.get(pk=4711), reason="wrong input file")
"""

from scheduling.services.batches import BatchRequest, Slot, create_batches, settle_overlap, slots_of, trigger
from scheduling.services.nodes import drain, give_up_waiting, undrain
from scheduling.services.operations import rerun, rerun_instance, stop, stop_instance
from scheduling.services.several import InstancesResult, rerun_instances, stop_instances
from scheduling.services.tasks import SCHEDULE_CHANNEL, content_digest, save_task, set_enabled

__all__ = [
    "SCHEDULE_CHANNEL",
    "BatchRequest",
    "InstancesResult",
    "Slot",
    "content_digest",
    "create_batches",
    "drain",
    "give_up_waiting",
    "rerun",
    "rerun_instance",
    "rerun_instances",
    "save_task",
    "set_enabled",
    "settle_overlap",
    "slots_of",
    "stop",
    "stop_instance",
    "stop_instances",
    "trigger",
    "undrain",
]
