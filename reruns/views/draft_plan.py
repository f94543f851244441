"""Step 4: the plan as it will run, and its submission: exactly that runs, or nothing.

What drifted since it was chosen is shown, and the submission names it: what was confirmed is what was seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from config.http import HtmxRequest, status_of
from reruns import services
from reruns.candidates import Candidate
from reruns.eligibility import in_part
from reruns.errors import Drift, Hole, HolesNotAccepted, PlanDrifted
from reruns.models import Rerun, Step
from reruns.plans import Plan, plan_of
from reruns.views.draft import for_draft, head, is_stale, record_of, stale_words
from reruns.views.draft_timeline import timeline_of
from reruns.views.draft_words import notes_of
from scheduling.errors import SchedulingError
from scheduling.notifications import told_in_words
from scheduling.views.rows import digest_of

TEMPLATE = "reruns/draft_plan.html"
NAMED = 60


class SubmitForm(forms.Form):
    """Why, and that what drifted has been seen."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Say why; it is kept in the journal.")},
    )
    confirmed = forms.BooleanField(label=gettext_lazy("I have seen what has changed"), required=False)
    drift = forms.CharField(required=False, widget=forms.HiddenInput)
    accepted = forms.BooleanField(
        label=gettext_lazy("I accept that these results are not rerun"), required=False
    )
    holes = forms.CharField(required=False, widget=forms.HiddenInput)


@dataclass
class Skipped:
    """What is left as it is, for one reason, and what becomes of those of it that are not ready."""

    why: str
    named: list[Candidate] = field(default_factory=list)
    count: int = 0

    @property
    def more(self) -> int:
        return self.count - len(self.named)


def skipped_of(plan: Plan) -> list[Skipped]:
    """What is downstream and not in the plan, by why, the most frequent first."""
    found: dict[str, Skipped] = {}
    chosen = {each.cycle_id for each in plan.chosen}
    for each in plan.candidates:
        if each.cycle_id in chosen:
            continue
        why = each.refusal.in_short if each.refusal else _("not ticked")
        group = found.setdefault(why, Skipped(why))
        group.count += 1
        if len(group.named) < NAMED:
            group.named.append(each)
    return sorted(found.values(), key=lambda group: -group.count)


@dataclass
class NotRerun:
    """An instance that is not rerun, although the source affects it and chosen ones read it: `readers`."""

    candidate: Candidate
    readers: list[str] = field(default_factory=list)

    @property
    def read_by(self) -> str:
        return in_part(self.readers)

    @property
    def can_tick(self) -> bool:
        return self.candidate.refusal is None


def not_rerun_of(plan: Plan) -> list[NotRerun]:
    """The holes of a plan by the instance that is not rerun."""
    found: dict[int, NotRerun] = {}
    for hole in plan.holes:
        if hole.upstream_id not in found:
            candidate = plan.candidate(hole.upstream_id)
            assert candidate is not None  # noqa: S101 - what has run has an instance
            found[hole.upstream_id] = NotRerun(candidate)
        found[hole.upstream_id].readers.append(hole.title)
    return list(found.values())


def digest_of_holes(holes: Sequence[Hole]) -> str:
    """By what a form says which holes were shown."""
    return digest_of(sorted((each.cycle_id, each.upstream_id) for each in holes)) if holes else ""


def digest_of_drift(drift: Sequence[Drift]) -> str:
    """By what a form says which drift was shown."""
    return digest_of([(each.name, each.was, each.now) for each in drift]) if drift else ""


@for_draft
def draft_plan(request: HtmxRequest, rerun: Rerun) -> HttpResponse:
    """The plan, wave by wave; a POST with a reason submits it."""
    plan = plan_of(rerun, user=request.user)
    form = SubmitForm(request.POST if request.method == "POST" else None)
    if request.method != "POST":
        return _shown(request, plan, form, plan.drift)
    if "tick" in request.POST:
        return _tick(request, plan, request.POST["tick"])
    drift = plan.drift
    if not form.is_valid():
        return _shown(request, plan, form, drift, status=422)
    if is_stale(request, rerun):
        return _shown(request, plan, form, drift, refusal=stale_words(), status=409)
    # A box that was ticked for other changes confirms none of these.
    seen = form.cleaned_data["drift"] == digest_of_drift(drift)
    if drift and not (seen and form.cleaned_data["confirmed"]):
        return _shown(request, plan, form, drift, refusal=_drifted(), status=409)
    seen = form.cleaned_data["holes"] == digest_of_holes(plan.holes)
    if plan.holes and not (seen and form.cleaned_data["accepted"]):
        return _shown(request, plan, form, drift, refusal=_holes_not_accepted(), status=409)
    return _submit(request, plan, form, drift)


def _tick(request: HtmxRequest, plan: Plan, asked: str) -> HttpResponse:
    """Choose what chosen instances read too: one of it by cycle id, or all of it (`between`)."""
    who: Any = request.user
    known = {str(hole.upstream_id): {hole.upstream_id} for hole in plan.holes}
    try:
        services.choose(plan.rerun, known.get(asked, plan.between if asked == "between" else ()), by=who)
    except SchedulingError as refusal:
        return _again(request, plan.rerun, SubmitForm(), str(refusal), None, status_of(refusal) or 409)
    return HttpResponseRedirect(request.get_full_path())


def _holes_not_accepted() -> str:
    return _(
        "Nothing was submitted: chosen instances read results that are not rerun. "
        "Tick these instances as well, or accept that they are not rerun."
    )


def _drifted() -> str:
    return _(
        "The plan has changed since you chose it, so nothing was submitted. Look at what changed, and confirm."
    )


def _submit(request: HtmxRequest, plan: Plan, form: SubmitForm, drift: Sequence[Drift]) -> HttpResponse:
    who: Any = request.user
    try:
        if plan.lost:
            # That these cannot be done any more was shown and confirmed.
            services.choose(plan.rerun, plan.lost, False, by=who)
            drift = [each for each in drift if each in plan_of(plan.rerun, user=who).drift]
        begun = services.submit(
            plan.rerun, confirmed=drift, accepted=plan.holes, by=who, reason=form.cleaned_data["reason"]
        )
    except HolesNotAccepted:
        return _again(request, plan.rerun, form, _holes_not_accepted(), None)
    except PlanDrifted as refusal:
        return _again(request, plan.rerun, form, _drifted(), refusal.drift)
    except SchedulingError as refusal:
        return _again(request, plan.rerun, form, str(refusal), None, status_of(refusal) or 409)
    return HttpResponseRedirect(record_of(begun.pk))


def _again(
    request: HtmxRequest,
    rerun: Rerun,
    form: SubmitForm,
    refusal: str,
    drift: Sequence[Drift] | None,
    status: int = 409,
) -> HttpResponse:
    """The plan as it stands after a refused submission, with what was written."""
    rerun.refresh_from_db()
    plan = plan_of(rerun, user=request.user)
    return _shown(request, plan, form, drift or plan.drift, refusal=refusal, status=status)


def _shown(
    request: HtmxRequest,
    plan: Plan,
    form: SubmitForm,
    drift: Sequence[Drift],
    *,
    refusal: str = "",
    status: int = 200,
) -> HttpResponse:
    rerun = plan.rerun
    outlooks = Counter(each.outlook for each in plan.candidates if each.outlook)
    context = head(request, rerun, Step.PLAN) | {
        "plan": plan,
        "summary": plan.summary,
        "notes": notes_of(plan, request.user),
        "timeline": timeline_of(plan, request.GET.get("page")),
        "path": plan.longest_path,
        "skipped": skipped_of(plan),
        "outlooks": outlooks,
        "impossible": plan.source.refusal,
        "told": told_in_words(rerun.notify),
        "form": form,
        "drift": drift,
        "digest": digest_of_drift(drift),
        "not_rerun": not_rerun_of(plan),
        "holes_digest": digest_of_holes(plan.holes),
        "refusal": refusal,
        "time_zone": timezone.get_current_timezone_name(),
    }
    return render(request, TEMPLATE, context, status=status)
