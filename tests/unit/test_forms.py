"""The widgets that are written without Django's templates are what those would write."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django import forms
from django.forms.renderers import DjangoTemplates, get_default_renderer

from config.forms import PlainRenderer

# Where a line ends between two tags says nothing.
_LINES = re.compile(r"\s*\n\s*")
TRICKY = '<b>"it\'s"&'
CHOICES = [("", "-"), (1, "one"), (TRICKY, TRICKY), ("Group " + TRICKY, [("a", "A"), ("b", "B")])]


@pytest.mark.parametrize("value", [None, "", TRICKY, 7])
@pytest.mark.parametrize(
    "widget",
    [
        forms.TextInput(attrs={"placeholder": TRICKY, "required": True, "disabled": False}),
        forms.NumberInput(attrs={"min": 0}),
        forms.HiddenInput(),
        forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}),
        forms.Select(attrs={"class": "wide"}, choices=CHOICES),
        forms.SelectMultiple(choices=CHOICES),
        forms.Textarea(),
    ],
    ids=lambda widget: type(widget).__name__,
)
def test_a_widget_is_written_as_by_djangos_templates(widget: forms.Widget, value: Any) -> None:
    attributes = {"id": "id_field", "aria-invalid": "true"}
    ours, theirs = (
        _LINES.sub("", widget.render("field", value, attributes, renderer()))
        for renderer in (PlainRenderer, DjangoTemplates)
    )
    assert ours == theirs


def test_forms_are_written_so() -> None:
    assert isinstance(get_default_renderer(), PlainRenderer)
