"""Which page of a keyset list an address asks for."""

from __future__ import annotations

from typing import Literal, TypedDict

from django.http import Http404, HttpRequest
from django.utils.translation import gettext as _

from config.http import NotFoundMessage
from scheduling.queries import BadCursor, Cursor


class Cursors(TypedDict, total=False):
    """Where a page of a keyset list begins, as `newest_first` takes it."""

    older: Cursor
    newer: Cursor


def cursors_of(request: HttpRequest) -> Cursors:
    """The cursors `older` and `newer` that the address has; Http404, with words, for one that is not ours."""
    cursors: Cursors = {}
    names: tuple[Literal["older", "newer"], ...] = ("older", "newer")
    for name in names:
        if text := request.GET.get(name):
            try:
                cursors[name] = Cursor.parse(text)
            except BadCursor as error:
                raise Http404(
                    NotFoundMessage(_("The address names no page of the list. Open the list anew."))
                ) from error
    return cursors
