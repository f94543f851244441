"""What an operator is asked before a rerun downstream runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from reruns.models import OnFailure, Rerun
from scheduling import notifications
from workflows.forms import AS_IT_IS_NOW, AS_IT_RAN

# What may be told, in the order of the form.
EVENTS = {
    "success": pgettext_lazy("notification of a rerun", "The rerun succeeded"),
    "terminated": pgettext_lazy("notification of a rerun", "The rerun was terminated"),
    "instance_failed": pgettext_lazy("notification of a rerun", "An instance failed"),
    "instance_stopped": pgettext_lazy("notification of a rerun", "An instance was stopped"),
}


def _number(label: Any) -> forms.IntegerField:
    return forms.IntegerField(
        label=label,
        help_text=_("0: as many as can run"),
        min_value=0,
        max_value=10_000,
        error_messages={"required": _("Say how many may run at once; 0 is no limit.")},
    )


class SettingsForm(forms.Form):
    """How a rerun downstream runs. Parameters that go over those of then are lines beside it."""

    content = forms.ChoiceField(
        label=_("Content"),
        choices=[
            (AS_IT_RAN, _("As it ran: the workflows and their tasks as they were then")),
            (AS_IT_IS_NOW, _("As it is now: the workflows and their tasks as they are today")),
        ],
        widget=forms.RadioSelect,
    )
    parallelism = _number(_("Instances at once"))
    node_parallelism = _number(_("Nodes at once, of each instance"))
    on_failure = forms.ChoiceField(
        label=_("When an instance fails"), choices=OnFailure.choices, widget=forms.RadioSelect
    )

    @classmethod
    def of(cls, rerun: Rerun, data: Any = None) -> SettingsForm:
        """The form with what a draft has, or with what was sent."""
        return cls(
            data,
            initial={
                "content": AS_IT_RAN if rerun.as_it_ran else AS_IT_IS_NOW,
                "parallelism": rerun.parallelism,
                "node_parallelism": rerun.node_parallelism,
                "on_failure": rerun.on_failure,
            },
        )

    def as_settings(self) -> dict[str, Any]:
        """The settings of a valid form as `services.save_settings` takes them."""
        given = self.cleaned_data
        return {
            "as_it_ran": given["content"] == AS_IT_RAN,
            "parallelism": given["parallelism"],
            "node_parallelism": given["node_parallelism"],
            "on_failure": given["on_failure"],
        }


# --- who is told ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """A channel and which events it is told of, each with whether it is ticked."""

    channel: str
    known: bool
    events: list[tuple[str, Any, bool]]


def told_of(rules: Sequence[Mapping[str, Any]]) -> list[Told]:
    """The channels that this process knows, and those of `rules`, with what each is told."""
    known = notifications.known_channels()
    channels = [*known, *sorted({rule["channel"] for rule in rules} - {*known})]
    return [
        Told(
            channel,
            channel in known,
            [
                (event, word, channel in notifications.channels_for(rules, event))
                for event, word in EVENTS.items()
            ],
        )
        for channel in channels
    ]


def rules_from(data: Any) -> list[dict[str, Any]]:
    """Rules, from the boxes `tell` of a posted form, each an event and a channel: `success:ops`."""
    told: dict[str, list[str]] = {}
    for box in data.getlist("tell"):
        event, _colon, channel = box.partition(":")
        if event in EVENTS and channel:
            told.setdefault(channel, []).append(event)
    return [{"channel": channel, "on": events} for channel, events in sorted(told.items())]
