"""Acting on many things in one call: each on its own, and what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import Error
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from scheduling.errors import SchedulingError, TooMany

# The answer must come while the operator waits for it, and every refusal in it be read: five hundred stops,
# each a transaction of its own, take some seconds. It also bounds what one wrong filter can do.
MOST_AT_ONCE = 500

logger = logging.getLogger("scheduling.bulk")


@dataclass(frozen=True)
class Refused:
    """The id of a thing that was left as it is, and why."""

    pk: int
    why: str


@dataclass
class Result[Thing]:
    """What was done to many things, or what came of it (the new batches of a rerun), and what was refused."""

    done: list[Thing] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def __repr__(self) -> str:
        lines = [f"{len(self.done)} done, {len(self.refused)} refused"]
        return "\n".join(lines + [f"  {each.pk}: {each.why}" for each in self.refused])


def ids_of(things: Iterable[Any], limit: int | None, too_many: str) -> list[int]:
    """The ids of a QuerySet or of any objects, without repeats; TooMany when there are more than `limit`.

    `too_many` says that, and has a `%d` for the limit. None takes any number.
    """
    ends = None if limit is None else limit + 1
    if isinstance(things, QuerySet):
        ids = list(things.values_list("pk", flat=True)[:ends])
    else:
        ids = list(dict.fromkeys(thing.pk for thing in things))[:ends]
    if limit is not None and len(ids) > limit:
        raise TooMany(too_many % limit)
    return ids


def attempt[Thing](result: Result[Thing], pk: int, act: Callable[[int], list[Thing]]) -> None:
    """Add to `result` what `act` did to the thing `pk`, or why it did not; it never raises for one of many."""
    try:
        result.done += act(pk)
    except SchedulingError as refusal:
        result.refused.append(Refused(pk, str(refusal)))
    except ObjectDoesNotExist:
        result.refused.append(Refused(pk, _("It is not there any more.")))
    except Error:
        # A deadlock, a lost connection: it concerns this one, and the next may well succeed.
        logger.exception("%s could not be acted on", pk)
        why = _("The database did not take it, and nothing was changed. Try it again.")
        result.refused.append(Refused(pk, why))
