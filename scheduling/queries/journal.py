"""The journal: about what, by whom, and in pages of several parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Q

from scheduling.queries.paging import Cursor, Page
from scheduling.queries.reach import within_reach

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


# Of an object's many entries these are the most, and all by the engine; what people do is rare beside them.
ROUTINE = ("ended", "ready", "started", "triggered")


class JournalQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team", task="task")

    def about(self, thing: models.Model) -> Self:
        """What was done to `thing`, and to the instances of a batch, the newest first."""
        name = thing._meta.model_name
        entries = Q(object_type=name, object_id=thing.pk)
        if name == "batch":
            instances = thing.instances.order_by("number")  # type: ignore[attr-defined]
            ends = [each.values_list("pk", flat=True).first() for each in (instances, instances.reverse())]
            if None not in ends:
                # Made together, they have ids of one range, which the index serves; and few others have them.
                of_instances = Q(object_type="instance", object_id__range=sorted(ends))
                entries |= of_instances & Q(object_id__in=instances.order_by().values("pk"))
        return self.filter(entries).order_by("-at", "-pk")

    def leading_to(self, instance: Any) -> Self:
        """What was done to `instance` or to its whole batch, and made it what it is; the newest first."""
        of_instance = Q(object_type="instance", object_id=instance.pk)
        of_batch = Q(
            object_type="batch",
            object_id=instance.batch_id,
            action__in=["triggered", "rerun", "stopped", "condition_not_met"],
        )
        return self.filter(of_instance | of_batch).order_by("-at", "-pk")

    def by_people(self) -> Self:
        return self.exclude(via="engine")

    def newest_of(
        self, parts: Iterable[Q], *, size: int, older: Cursor | None = None, newer: Cursor | None = None
    ) -> Page[Any]:
        """A page as of `newest_first`, by (at, id), of entries that lie in one of the disjoint `parts`.

        Each part is read on its own and the newest of all are taken: an index on (part, at, id) then serves
        every page, where a condition that spans parts would be read along the whole journal.
        """
        beyond, order = Q(), ("-at", "-pk")
        if newer is not None:
            beyond = Q(at__gte=newer.at) & (Q(at__gt=newer.at) | Q(pk__gt=newer.pk))
            order = ("at", "pk")
        elif older is not None:
            beyond = Q(at__lte=older.at) & (Q(at__lt=older.at) | Q(pk__lt=older.pk))
        of_parts = [self.filter(part, beyond).order_by(*order)[: size + 1] for part in parts]
        if not of_parts or self.query.is_empty():
            return Page([])
        first, *others = of_parts
        found = list(first.union(*others, all=True).order_by(*order)[: size + 1] if others else first)
        if newer is not None:
            if len(found) <= size:
                return self.newest_of(parts, size=size)
            rows = found[::-1][1:]
            return Page(rows, newer=Cursor.at_entry(rows[0]), older=Cursor.at_entry(rows[-1]))
        rows = found[:size]
        return Page(
            rows,
            newer=Cursor.at_entry(rows[0]) if older is not None and rows else None,
            older=Cursor.at_entry(rows[-1]) if len(found) > size else None,
        )
