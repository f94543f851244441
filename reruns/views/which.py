"""What the address of a rerun's record says: the view, and what of the flow is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest

from scheduling.filters.fields import as_id

VIEWS = ("list", "flow")
# More than anybody opens one by one.
MOST_OPENED = 50


@dataclass(frozen=True)
class Which:
    """`opened` are workflows whose items are drawn one by one, `folds` boxes that the drawing had folded."""

    view: str = "list"
    opened: tuple[int, ...] = ()
    folds: tuple[str, ...] = ()
    whole: bool = False

    @classmethod
    def of(cls, request: HttpRequest) -> Which:
        """As the address has it; what makes no sense is left out."""
        given = request.GET
        view = given.get("view", "")
        opened = [number for word in given.getlist("open")[:MOST_OPENED] if (number := as_id(word)) is not None]
        folds = [word[:60] for word in given.getlist("fold")[:MOST_OPENED]]
        return cls(
            view if view in VIEWS else VIEWS[0],
            tuple(dict.fromkeys(opened)),
            tuple(dict.fromkeys(folds)),
            "whole" in given,
        )

    def changed(self, **values: Any) -> str:
        """The query with some of it changed; `workflow` or `wave` is what the list is narrowed to."""
        given: dict[str, Any] = {
            "view": self.view,
            "open": self.opened,
            "fold": self.folds,
            "whole": self.whole,
        } | values
        pairs: list[tuple[str, Any]] = [("view", given["view"])]
        if given["view"] == "flow":
            pairs += [("open", each) for each in given["open"]] + [("fold", each) for each in given["fold"]]
            pairs += [("whole", 1)] if given["whole"] else []
        pairs += [(name, given[name]) for name in ("workflow", "wave") if name in given]
        return f"?{urlencode(pairs)}"
