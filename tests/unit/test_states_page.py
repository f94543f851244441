"""docs/states.md says what the tables say."""

from pathlib import Path

from scheduling.management.commands.states import document
from scheduling.states import Machine

_PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def test_the_page_is_the_one_that_make_docs_writes():
    assert _PAGE.read_text() == document(), "run `make docs`"


def test_every_move_of_every_machine_has_its_line():
    page = document()

    for machine in Machine.all:
        section = page.split(f"\n## {machine.name}\n")[1].split("\n## ")[0]
        for (old, new), when in machine.moves.items():
            assert f"    {old} --> {new}\n" in section
            assert f"(`{old}`) | " in section
            assert f"(`{new}`) | {when} |" in section
