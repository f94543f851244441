"""Saved filters: a person's own names for what they look for again and again.

They are nobody's work but their owner's, so the journal does not hear of them.
"""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from scheduling.errors import NotSaved
from scheduling.models import SavedFilter

# So that the menu stays one that can be read.
MOST_SAVED = 50


def save_filter(user: Any, *, page: str, name: str, query: str) -> SavedFilter:
    """Keep `query` under `name` for `user`; a filter of that name is replaced. Raises NotSaved."""
    own = SavedFilter.objects.filter(user=user, page=page)
    name = _clean(name)
    if not own.filter(name=name).exists() and own.count() >= MOST_SAVED:
        raise NotSaved(_("%d filters are saved; delete one that you do not need.") % MOST_SAVED)
    saved, _created = SavedFilter.objects.update_or_create(
        user=user, page=page, name=name, defaults={"query": query}
    )
    return saved


def rename_filter(saved: SavedFilter, name: str) -> SavedFilter:
    """Give `saved` another name. Raises NotSaved when another filter of the page has it."""
    saved.name = _clean(name)
    try:
        with transaction.atomic():
            saved.save(update_fields=["name"])
    except IntegrityError as error:
        taken = _("Another filter is named %(name)s. Choose another name, or delete that one first.")
        raise NotSaved(taken % {"name": saved.name}) from error
    return saved


@transaction.atomic
def make_default(saved: SavedFilter, default: bool) -> SavedFilter:
    """Whether `saved` applies when its page is opened bare; at most one does."""
    SavedFilter.objects.select_for_update().filter(user=saved.user_id, page=saved.page, is_default=True).update(
        is_default=False
    )
    saved.is_default = default
    saved.save(update_fields=["is_default"])
    return saved


def _clean(name: str) -> str:
    name = " ".join(name.replace("\0", "").split())
    longest = SavedFilter._meta.get_field("name").max_length or 0
    if not name:
        raise NotSaved(_("Give the filter a name."))
    if len(name) > longest:
        raise NotSaved(_("The name is too long; give at most %d characters.") % longest)
    return name
