"""What documents define besides groups and tasks: each app above adds a section of its own.

The ground knows no workflows. A section says under which key its things stand and answers for all that is done
with them; `register` makes it part of `apply` and `export`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from scheduling import journal
from scheduling.definitions.reading import Document, Path
from scheduling.models import Team

if TYPE_CHECKING:
    from scheduling.definitions.checking import Checking
    from scheduling.definitions.planning import Step

# A thing as its team's name and its own.
type Name = tuple[str, str]


@dataclass(frozen=True)
class Item:
    """One map in a section's list: where it stands, and its team (None when that is wrong already)."""

    document: Document
    path: Path
    data: dict[str | int, Any]
    team: str | None


class Section(Protocol):
    """A key of documents, `key`, that lists things, each called a `thing`; `example` is a short one."""

    @property
    def key(self) -> str: ...
    @property
    def thing(self) -> str: ...
    @property
    def example(self) -> str: ...

    def check(self, items: Sequence[Item], checking: Checking) -> Mapping[Name, Any]:
        """What the items define, by name; every mistake goes to `checking`.

        All documents have been read by then, so an item may refer to whatever any of them defines.
        """

    def steps(self, wanted: Mapping[Name, Any]) -> Iterable[Step]:
        """What applying these would change, in the order in which it is to be done."""

    def existing(self, teams: Collection[str]) -> Collection[Name]:
        """The things that these teams have."""

    def lock(self, names: Collection[Name]) -> bool:
        """Lock these things until the end of the transaction; whether there were any."""

    def save(self, wanted: Any, team: Team, *, new: bool, by: journal.By, reason: str) -> Any:
        """Make a thing what is wanted. Raises DefinitionsMoved when it was to be new and exists."""

    def forms(self, team: Team) -> list[dict[str, Any]]:
        """The team's things as their maps in the file, in the order of the export."""


_sections: dict[str, Section] = {}


def register(section: Section) -> None:
    """Let documents have this section; called once by an app that is ready."""
    _sections[section.key] = section


def sections() -> Collection[Section]:
    """Those that were registered, in that order."""
    return _sections.values()
