"""Workflows in the administration: the text of the definition file, checked and compared as `apply` does it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import definitions
from scheduling.admin.definitions import DefinitionMoved, DefinitionPage
from scheduling.admin.records import RecordPage
from scheduling.admin.site import site
from scheduling.definitions import Step
from scheduling.definitions.checking import Checking
from scheduling.definitions.sections import Item
from scheduling.models import Team
from scheduling.services import content_digest
from workflows import services
from workflows.definitions import WORKFLOWS, WorkflowDefinition, check_item, workflow_step
from workflows.definitions.form import form_of
from workflows.definitions.section import Together
from workflows.models import Workflow, WorkflowRevision
from workflows.permissions import EDIT

_EXAMPLE = """\
schedule:
  cron: 0 1 * * *
  timezone: UTC
nodes:
  - key: extract
    task: extract
  - key: clean
    task: clean
    after:
      - extract
"""


def text_of(workflow: Workflow | None) -> str:
    """What stands under the workflow's name in a definition file; an example for one that is still to come."""
    if workflow is None or workflow.revision is None:
        return _EXAMPLE
    return definitions.dump({key: value for key, value in form_of(workflow).items() if key != "name"})


def stamp(workflow: Workflow | None) -> str:
    """What tells one state of a workflow from every other, so that nobody overwrites what they never saw."""
    if workflow is None or workflow.revision is None:
        return ""
    return content_digest(form_of(workflow))


class WorkflowForm(forms.ModelForm):  # type: ignore[type-arg]
    """The definition as one text. After `is_valid`, `wanted` is what it means and `step` what it changes."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    definition = forms.CharField(
        label=gettext_lazy("Definition"),
        strip=False,
        help_text=gettext_lazy(
            "YAML, as under the workflow's name in a definition file: schedule, mode, starts, enabled, "
            "parallelism, misfire, timeout, retention, notify, nodes, depends_on."
        ),
        widget=forms.Textarea(
            attrs={"class": "vLargeTextField code", "rows": 32, "cols": 80, "spellcheck": "false"}
        ),
    )

    wanted: WorkflowDefinition
    step: Step
    stored: Workflow | None = None

    class Meta:
        model = Workflow
        fields = ("team", "name")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        workflow = self.instance if self.instance.pk else None
        self.initial.setdefault("definition", text_of(workflow))
        self.initial["seen"] = stamp(workflow)

    @property
    def now(self) -> str:
        """The stamp of the workflow as it is stored now."""
        return stamp(self.stored)

    @property
    def moved(self) -> bool:
        """Whether somebody changed the workflow since this form was filled from it."""
        return bool(self.cleaned_data["seen"] != self.now)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.instance.pk:
            # As it is stored now, not as the page that was sent has it.
            workflows = Workflow.objects.select_related("team", "revision__workflow")
            self.stored = workflows.get(pk=self.instance.pk)
        team = self.stored.team if self.stored else cleaned.get("team")
        name = self.stored.name if self.stored else cleaned.get("name")
        if self.stored is None and team and Workflow.objects.filter(team=team, name=name).exists():
            self.add_error("name", _("The team %(team)s has a workflow of this name.") % {"team": team.name})
        found = self._read(team.name, name, cleaned.get("definition") or "") if team and name else None
        if self.errors or found is None:
            return cleaned
        # Here the text is the whole truth: what does not say that it is off is on.
        self.wanted = replace(found, enabled=found.enabled is not False)
        self.step = workflow_step(self.wanted, self.stored)
        if "_edit" in self.data:
            raise ValidationError(_("Nothing is saved yet. Change what you like, and go on."))
        return cleaned

    def _read(self, team: str, name: str, text: str) -> WorkflowDefinition | None:
        documents, mistakes = definitions.read("", text.replace("\r\n", "\n").encode())
        checking = Checking(mistakes)
        found = None
        if len(documents) == 1 and isinstance(data := documents[0].data, dict):
            if data.setdefault("name", name) != name:
                message = _("It is another name than the workflow's, %(name)s.") % {"name": name}
                checking.mistakes.append(documents[0].mistake(("name",), message))
            item = Item(documents[0], (), data | {"name": name}, team)
            found = check_item(item, checking, Together.of([item], checking))
        elif not mistakes:
            self.add_error("definition", _("It is one map, with the workflow's nodes under the key “nodes”."))
        for mistake in sorted(checking.mistakes):
            place = _("Line %(line)d: ") % {"line": mistake.line} if mistake.line else ""
            self.add_error("definition", place + ": ".join(filter(None, [mistake.path, mistake.message])))
        return found


@admin.register(Workflow, site=site)
class WorkflowPage(DefinitionPage):
    permission: ClassVar[str] = EDIT
    change_title = gettext_lazy("Change the workflow %(name)s?")
    create_title = gettext_lazy("Create the workflow %(name)s?")
    form = WorkflowForm
    list_display = ("name", "team", "mode", "enabled")
    list_filter = ("mode", "enabled", ("team", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("team",)
    search_fields = ("name",)
    fieldsets = ((None, {"fields": (("team", "name"), "definition", "seen")}),)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("team", "revision__workflow")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Definitions refer to a workflow by its team and name.
        return ("team", "name") if obj is not None else ()

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = Team.objects.filter(pk__in=self.teams(request)).order_by("name")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        wanted = form.wanted
        if change:
            Workflow.objects.locked([obj.pk])
            workflows = Workflow.objects.select_related("revision__workflow")
            if stamp(workflows.get(pk=obj.pk)) != form.cleaned_data["seen"]:
                raise DefinitionMoved
        try:
            team = Team.objects.get(name=wanted.team)
            reason = request.POST["reason"].strip()
            saved = WORKFLOWS.save(wanted, team, new=not change, by=request.user, reason=reason)
        except definitions.DefinitionsMoved as moved:
            raise DefinitionMoved(str(moved)) from moved
        obj.pk = saved.pk

    def why_not_deleted(self, thing: Any) -> str:
        return services.use_of(thing)

    def remove(self, thing: Any, request: HttpRequest, reason: str) -> None:
        services.delete_workflow(thing, by=request.user, reason=reason)


@admin.register(WorkflowRevision, site=site)
class WorkflowRevisionPage(RecordPage):
    list_display = ("workflow", "number", "cron", "timezone", "created_at", "created_by")
    list_select_related = ("workflow", "created_by")
    search_fields = ("workflow__name",)
