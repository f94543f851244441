"""What cycles and their instances are called in a sentence, and where their pages are."""

from __future__ import annotations

from django.urls import NoReverseMatch, reverse
from django.utils.html import escape
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from scheduling import clocks
from scheduling.permissions import User
from scheduling.standing import standing_of
from workflows.models import Cycle, CycleInstance


def anchor(address: str, label: str) -> SafeString:
    """A link."""
    return SafeString(f'<a href="{escape(address)}">{escape(label)}</a>')


def page_link(name: str, pk: int, label: str) -> SafeString:
    """A link to the page `name` of one thing; the label alone when this installation has no such page."""
    try:
        return anchor(reverse(name, args=[pk]), label)
    except NoReverseMatch:
        return SafeString(f"<b>{escape(label)}</b>")


def address_of(instance: CycleInstance) -> str:
    """Where the page of an instance is."""
    return reverse("cycle-detail", args=[instance.pk])


def node_address(instance: CycleInstance, key: str) -> str:
    """Where the page of an instance is, with the node `key` chosen."""
    return f"{address_of(instance)}?node={key}"


def sees(user: User, team_id: int) -> bool:
    """Whether `user` may open what belongs to a team."""
    return bool(getattr(user, "is_superuser", False)) or team_id in standing_of(user).roles


def cycle_link(instance: CycleInstance, label: str, user: User) -> SafeString:
    """The name of an instance, as a link if `user` may open it."""
    if sees(user, instance.team_id):
        return anchor(address_of(instance), label)
    return SafeString(f"<b>{escape(label)}</b>")


def cycle_name(cycle: Cycle) -> str:
    """A cycle in a sentence: its workflow and its time."""
    return f"{cycle.workflow.name} {clocks.titled(cycle.cycle_time)}"


def instance_name(instance: CycleInstance) -> str:
    """The cycle time of an instance and, of a later run, its number."""
    name = clocks.titled(instance.cycle_time)
    if instance.number == 1:
        return name
    return _("%(time)s, run %(number)d") % {"time": name, "number": instance.number}
