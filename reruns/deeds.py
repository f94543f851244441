"""What the journal calls reruns and what is done to them."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from reruns.states import RerunState
from scheduling import deeds


def register() -> None:
    """Make the words known; called once, when the app is ready."""
    deeds.extend(
        actions={
            "submitted": pgettext_lazy("journal", "Submitted"),
            "taken_out": pgettext_lazy("journal", "Took out"),
            "freed": pgettext_lazy("journal", "Freed"),
            "content_taken": pgettext_lazy("journal", "Took the current content"),
            "failed": pgettext_lazy("journal", "Failed"),
        },
        objects={"rerun": _("Rerun downstream")},
        details={
            "rerun": _("Rerun"),
            "terminated_first": _("Terminated first"),
            "frozen": _("Frozen"),
            "confirmed_drift": _("Changed since the plan was shown"),
            "cycles": _("Cycles"),
            "not_rerun_upstream": _("Upstream results not rerun"),
            "edited": _("Edited"),
            "earlier_results": _("Earlier results"),
        },
        choices={},
        states={"rerun": RerunState},
        named={},
    )
