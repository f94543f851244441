"""The list of reruns, with one's own drafts above it."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from reruns.models import Rerun
from reruns.states import RerunState

TEMPLATE = "reruns/rerun_list.html"
PAGE_SIZE = 50


@require_safe
def rerun_list(request: HtmxRequest) -> HttpResponse:
    """The reruns that one may see, newest first."""
    found = Rerun.objects.visible_to(request.user).exclude(state=RerunState.DRAFT)
    context = {
        "reruns": found.select_related("team").order_by("-created_at", "-pk")[:PAGE_SIZE],
        "time_zone": timezone.get_current_timezone_name(),
    }
    return render(request, TEMPLATE, context)
