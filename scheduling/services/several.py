"""Stop or rerun several instances in one call. What one of them is refused never drops the others.

>>> services.rerun_instances(batch.instances.filter(state="failed"), reason="the disk is free again")
7 done, 1 refused
  instance 4711: Node etl-2 is offline, and a broadcast instance reruns only on its own node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django.core.exceptions import ObjectDoesNotExist
from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.errors import SchedulingError, TooMany
from scheduling.models import Instance
from scheduling.services.operations import rerun_instance, stop_instance

# The answer must come while the operator waits for it: each is a transaction of its own, of a few milliseconds.
MOST_INSTANCES = 1000


@dataclass(frozen=True)
class RefusedInstance:
    """An instance that was left as it is, and why."""

    instance: Instance
    why: str


@dataclass
class InstancesResult:
    """What was done to several instances, and what was refused."""

    done: list[Instance] = field(default_factory=list)
    refused: list[RefusedInstance] = field(default_factory=list)

    def __repr__(self) -> str:
        lines = [f"{len(self.done)} done, {len(self.refused)} refused"]
        return "\n".join(lines + [f"  instance {each.instance.pk}: {each.why}" for each in self.refused])


def stop_instances(
    instances: Iterable[Instance], *, by: journal.By = None, reason: str = ""
) -> InstancesResult:
    """Stop each of `instances` (a QuerySet or any objects) as `stop_instance` does, each on its own.

    Raises TooMany, and does nothing, when there are more than MOST_INSTANCES.
    """
    return _each(instances, lambda instance: stop_instance(instance, by=by, reason=reason))


def rerun_instances(
    instances: Iterable[Instance], *, by: journal.By = None, reason: str = ""
) -> InstancesResult:
    """Rerun each of `instances` (a QuerySet or any objects) as `rerun_instance` does, each on its own.

    Raises TooMany, and does nothing, when there are more than MOST_INSTANCES.
    """
    return _each(instances, lambda instance: rerun_instance(instance, by=by, reason=reason))


def _each(instances: Iterable[Instance], act: Callable[[Instance], Instance]) -> InstancesResult:
    found = {instance.pk: instance for instance in instances}
    if len(found) > MOST_INSTANCES:
        raise TooMany(
            _("One action takes at most %(most)d instances, and these are %(count)d. Do it in parts.")
            % {"most": MOST_INSTANCES, "count": len(found)}
        )
    result = InstancesResult()
    for _pk, instance in sorted(found.items()):
        try:
            result.done.append(act(instance))
        except SchedulingError as refusal:
            result.refused.append(RefusedInstance(instance, str(refusal)))
        except ObjectDoesNotExist:
            result.refused.append(RefusedInstance(instance, _("It is not there any more.")))
    return result
