"""Stop or rerun several instances in one call. What one of them is refused never drops the others.

>>> services.rerun_instances(batch.instances.filter(state="failed"), reason="the disk is free again")
7 done, 1 refused
  4711: Node etl-2 is offline, and a broadcast instance reruns only on its own node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.errors import TooMany
from scheduling.models import Instance
from scheduling.services.operations import rerun_instance, stop_instance
from scheduling.services.results import Result, attempt

# The answer must come while the operator waits for it: each is a transaction of its own, of a few milliseconds.
MOST_INSTANCES = 1000


def stop_instances(
    instances: Iterable[Instance], *, by: journal.By = None, reason: str = ""
) -> Result[Instance]:
    """Stop each of `instances` (a QuerySet or any objects) as `stop_instance` does, each on its own.

    Raises TooMany, and does nothing, when there are more than MOST_INSTANCES.
    """
    return _each(instances, lambda instance: stop_instance(instance, by=by, reason=reason))


def rerun_instances(
    instances: Iterable[Instance], *, by: journal.By = None, reason: str = ""
) -> Result[Instance]:
    """Rerun each of `instances` (a QuerySet or any objects) as `rerun_instance` does, each on its own.

    Raises TooMany, and does nothing, when there are more than MOST_INSTANCES.
    """
    return _each(instances, lambda instance: rerun_instance(instance, by=by, reason=reason))


def _each(instances: Iterable[Instance], act: Callable[[Instance], Instance]) -> Result[Instance]:
    found = {instance.pk: instance for instance in instances}
    if len(found) > MOST_INSTANCES:
        raise TooMany(
            _("One action takes at most %(most)d instances, and these are %(count)d. Do it in parts.")
            % {"most": MOST_INSTANCES, "count": len(found)}
        )
    result: Result[Instance] = Result()
    for pk in sorted(found):
        attempt(result, pk, lambda pk: [act(found[pk])])
    return result
