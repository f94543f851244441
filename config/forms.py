"""How form widgets become HTML: those that every filter has, without a template for each attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.forms.renderers import DjangoTemplates
from django.http import HttpRequest
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString

type Widget = Mapping[str, Any]


class PlainRenderer(DjangoTemplates):
    """Writes text boxes and selects as Django's templates do; whatever else is asked for is left to these.

    Django includes a template for a widget, one in it for its attributes and one for each option: the dozen
    fields of a filter cost more than any other part of a list's page but its rows.
    """

    def render(self, template_name: str, context: dict[str, Any], request: HttpRequest | None = None) -> str:
        write = _WRITERS.get(template_name)
        if write is None:
            return super().render(template_name, context, request)
        return SafeString(write(context["widget"]))


def _attributes(widget: Widget) -> str:
    """The attributes of a widget: True is one without a value, and False none."""
    return "".join(
        f" {name}" if value is True else f' {name}="{conditional_escape(str(value))}"'
        for name, value in widget["attrs"].items()
        if value is not False
    )


def _input(widget: Widget) -> str:
    value = widget["value"]
    given = "" if value is None else f' value="{conditional_escape(str(value))}"'
    name = conditional_escape(widget["name"])
    return f'<input type="{widget["type"]}" name="{name}"{given}{_attributes(widget)}>'


def _select(widget: Widget) -> str:
    groups = "".join(_group(label, options) for label, options, _index in widget["optgroups"])
    return f'<select name="{conditional_escape(widget["name"])}"{_attributes(widget)}>{groups}\n</select>'


def _group(label: Any, options: list[Widget]) -> str:
    listed = "".join(f"\n  {_option(option)}" for option in options)
    return f'\n  <optgroup label="{conditional_escape(label)}">{listed}\n  </optgroup>' if label else listed


def _option(option: Widget) -> str:
    value = conditional_escape(str(option["value"]))
    return f'<option value="{value}"{_attributes(option)}>{conditional_escape(option["label"])}</option>'


_WRITERS: Mapping[str, Callable[[Widget], str]] = {
    "django/forms/widgets/text.html": _input,
    "django/forms/widgets/number.html": _input,
    "django/forms/widgets/hidden.html": _input,
    "django/forms/widgets/datetime.html": _input,
    "django/forms/widgets/select.html": _select,
}
