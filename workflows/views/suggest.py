"""What the box of a filter offers while one types: the workflows that its reader may see."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.filters.fields import as_id, printable
from scheduling.views.suggest import MOST_OFFERED, offer
from workflows.models import Workflow


@require_safe
def suggest_workflows(request: HtmxRequest) -> HttpResponse:
    """Workflows whose name has what was typed in it, or whose ID it is; a name of two is offered as IDs."""
    typed = printable(request.GET.get("workflow", "")).strip()
    found = list(Workflow.objects.visible_to(request.user).suggested(typed, as_id(typed))[:MOST_OFFERED])
    names = [each.name for each in found]
    offers = [
        (each.name if names.count(each.name) == 1 else str(each.pk), each.name, f"{each.team.name} · {each.pk}")
        for each in found
    ]
    return offer(request, "workflow", offers)
