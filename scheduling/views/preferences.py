"""How one reader wants pages: language, time zone and theme, remembered by their browser."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language, get_language_info, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from config import viewer


class PreferencesForm(forms.Form):
    """What a reader may choose."""

    language = forms.ChoiceField(label=gettext_lazy("Language"))
    zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False)
    theme = forms.ChoiceField(
        label=gettext_lazy("Theme"),
        required=False,
        choices=[
            ("", gettext_lazy("As the system")),
            ("light", gettext_lazy("Light")),
            ("dark", gettext_lazy("Dark")),
        ],
    )

    def __init__(self, *args: Any, browser_zone: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Each by its own name: who cannot read the page finds theirs.
        languages = [(code, get_language_info(code)["name_local"]) for code, _name in settings.LANGUAGES]
        fields: dict[str, Any] = self.fields
        fields["language"].choices = languages
        fields["zone"].choices = _zone_choices(browser_zone)


def _zone_choices(browser_zone: str) -> list[tuple[str, Any]]:
    as_browser = (
        _("As the browser (%(zone)s)") % {"zone": browser_zone} if browser_zone else _("As the browser")
    )
    universal, *places = viewer.zone_names()
    regions = groupby(places, key=lambda name: name.partition("/")[0])
    return [
        ("", as_browser),
        (universal, universal),
        *((region, [(name, _place(name)) for name in names]) for region, names in regions),
    ]


def _place(zone: str) -> str:
    return zone.partition("/")[2].replace("_", " ").replace("/", " / ")


@require_http_methods(["GET", "HEAD", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    """The page of a reader's preferences, and their keeping."""
    browser = viewer.zone_named(request.COOKIES.get(viewer.BROWSER_ZONE))
    chosen = viewer.zone_named(request.COOKIES.get(viewer.CHOSEN_ZONE))
    form = PreferencesForm(
        request.POST if request.method == "POST" else None,
        initial={
            "language": get_language(),
            "zone": str(chosen) if chosen else "",
            "theme": viewer.theme_of(request),
        },
        browser_zone=str(browser) if browser else "",
    )
    if form.is_bound and form.is_valid():
        return _kept(form.cleaned_data)
    return render(
        request,
        "scheduling/preferences.html",
        {"form": form, "saved": "saved" in request.GET, "time_zone": timezone.get_current_timezone_name()},
        status=422 if form.is_bound else 200,
    )


def _kept(chosen: dict[str, str]) -> HttpResponse:
    response = HttpResponseRedirect(reverse("preferences") + "?saved")
    viewer.keep(response, settings.LANGUAGE_COOKIE_NAME, chosen["language"])
    viewer.keep(response, viewer.CHOSEN_ZONE, chosen["zone"])
    viewer.keep(response, viewer.THEME, chosen["theme"])
    return response
