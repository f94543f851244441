"""What became of many things that were acted on in one call."""

from __future__ import annotations

from dataclasses import dataclass, field


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
