"""What an operator is asked before something is run again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

AS_IT_RAN, AS_IT_IS_NOW = "ran", "now"
GO_ON, STOP = "go_on", "stop"
# Beyond these a calendar soon ends, in one zone or another.
EARLIEST, LATEST = 1970, 2200


def refuse_far_off(year: int) -> None:
    """Raise ValidationError for a year of which no workflow has cycles."""
    if not EARLIEST <= year <= LATEST:
        text = _("There are no cycles in %(year)s; give a year from %(first)s to %(last)s.")
        raise ValidationError(text % {"year": year, "first": EARLIEST, "last": LATEST})


class RerunSettings(forms.Form):
    """How a rerun runs, whatever it consists of, and why; `workflows/rerun_settings.html` draws it.

    Parameters that go over those of then are lines beside it: scheduling.views.parameter_lines.
    """

    content = forms.ChoiceField(
        label=_("Content"),
        choices=[
            (AS_IT_RAN, _("As it ran: the workflow and its tasks as they were then")),
            (AS_IT_IS_NOW, _("As it is now: the workflow and its tasks as they are today")),
        ],
        initial=AS_IT_RAN,
        widget=forms.RadioSelect,
    )
    node_parallelism = forms.IntegerField(
        label=_("Nodes at once"),
        help_text=_("0: as many as can run"),
        initial=0,
        min_value=0,
        max_value=10_000,
        error_messages={"required": _("Say how many nodes may run at once; 0 is no limit.")},
    )
    on_failure = forms.ChoiceField(
        label=_("When a node fails"),
        choices=[
            (GO_ON, _("Go on with the other branches")),
            (STOP, _("Stop the rerun: end what runs, begin nothing more")),
        ],
        initial=GO_ON,
        widget=forms.RadioSelect,
    )
    discards_earlier = forms.BooleanField(
        label=_("Discard the earlier result: downstream cycles wait until a new run succeeds"), required=False
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"required": _("Say why; it is kept in the journal.")},
    )

    @property
    def as_it_ran(self) -> bool:
        """Whether the content is that of then, also while the form is not complete."""
        return bool(self["content"].value() != AS_IT_IS_NOW)

    def as_arguments(self) -> dict[str, Any]:
        """The settings of a valid form as `services.rerun` takes them."""
        given = self.cleaned_data
        return {
            "as_it_ran": given["content"] == AS_IT_RAN,
            "node_parallelism": given["node_parallelism"],
            "stop_on_failure": given["on_failure"] == STOP,
            "discards_earlier": given["discards_earlier"],
            "reason": given["reason"],
        }
