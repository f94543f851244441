"""docs/rerun-downstream.md names, for every sentence of the specification, tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "rerun-downstream.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_test_that_it_names_exists() -> None:
    named = NAMED.findall(DOCUMENT.read_text())
    assert len(named) > 30
    missing = []
    for path, name in named:
        file = ROOT / "tests" / path
        if not file.exists() or not re.search(rf"^def {name}\(", file.read_text(), re.MULTILINE):
            missing.append(f"{path}::{name}")
    assert not missing


def test_every_row_of_its_table_names_a_test() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ") and " – " in line]
    assert len(rows) > 25
    assert [row for row in rows if not NAMED.search(row)] == []
