"""The frame's navigation."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag(takes_context=True)
def place(context: dict[str, Any], name: str, label: str, icon: str, also: str = "") -> SafeString:
    """A link of the navigation to the page `name`, marked when one reads it or, below it, one of its things.

    `also`: where else its things live, as the start of a path.
    """
    address = reverse(name)
    here = context["request"].path
    below = (address != "/" and here.startswith(address)) or (bool(also) and here.startswith(also))
    current = ' aria-current="page"' if here == address else ' aria-current="true"' if below else ""
    return format_html(
        '<a href="{}"{}><svg aria-hidden="true"><use href="{}#{}"/></svg>{}</a>',
        address,
        SafeString(current),
        static("icons.svg"),
        icon,
        label,
    )
