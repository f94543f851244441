"""Styles that a browser reads as they were meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "config" / "static"


@pytest.mark.parametrize("sheet", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_every_layer_of_a_stylesheet_is_closed_before_the_next_begins(sheet: Path) -> None:
    depth = 0
    text = re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.DOTALL)
    for number, line in enumerate(text.splitlines(), start=1):
        assert depth == 0 or not line.startswith("@layer"), f"line {number} is inside of what was not closed"
        depth += line.count("{") - line.count("}")
    assert depth == 0
