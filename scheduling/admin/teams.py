"""Teams, their members, their deployment groups, and what they grant to other teams.

Other teams and people are named by typing the exact name: nobody is shown a list of what is not theirs.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import services
from scheduling.admin.base import TeamPage
from scheduling.admin.site import site
from scheduling.models import DeploymentGroup, Membership, Task, TaskGrant, Team
from scheduling.models.teams import Granted, Role
from scheduling.permissions import EDIT_TASK, EDIT_TEAM


def active_user(username: str) -> Any:
    """The account with exactly this name; ValidationError."""
    user = get_user_model().objects.filter(username=username, is_active=True).first()
    if user is None:
        raise ValidationError(
            _("There is no account %(name)s that is switched on. Names are written exactly as at sign-in.")
            % {"name": username}
        )
    return user


def reason_field() -> forms.CharField:
    return forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
        help_text=gettext_lazy("It stands in the journal."),
    )


def name_field(label: Any, help_text: Any) -> forms.CharField:
    """For the name of somebody or something that is typed, not chosen."""
    widget = forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"})
    return forms.CharField(label=label, max_length=150, widget=widget, help_text=help_text)


# --- teams -----------------------------------------------------------------------------------------


class TeamForm(forms.ModelForm):  # type: ignore[type-arg]
    owner = name_field(gettext_lazy("First owner"), gettext_lazy("The name of an account."))
    reason = reason_field()

    class Meta:
        model = Team
        fields = ("name",)

    def clean_owner(self) -> Any:
        return active_user(self.cleaned_data["owner"])


@admin.register(Team, site=site)
class TeamsPage(TeamPage):
    """Administrators of the installation make teams; their owners look at theirs. A name is for good."""

    permission: ClassVar[str] = EDIT_TEAM
    team_path = "pk"
    form = TeamForm
    list_display = ("name",)
    search_fields = ("name",)
    fields = ("name", "owner", "reason")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.fields if obj is None else ("name",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.is_superuser

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        reason = form.cleaned_data["reason"]
        obj.pk = services.create_team(name=obj.name, by=request.user, reason=reason).pk
        services.set_member(
            team=obj, user=form.cleaned_data["owner"], role=Role.OWNER, by=request.user, reason=reason
        )


# --- members ---------------------------------------------------------------------------------------


class MembershipForm(forms.ModelForm):  # type: ignore[type-arg]
    person = name_field(gettext_lazy("User"), gettext_lazy("The name of an account, exactly as at sign-in."))
    reason = reason_field()

    class Meta:
        model = Membership
        fields = ("team", "role")

    def clean_person(self) -> Any:
        return active_user(self.cleaned_data["person"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        team, person = cleaned.get("team"), cleaned.get("person")
        if team and person and Membership.objects.filter(team=team, user=person).exists():
            self.add_error("person", _("They are a member already; open that membership to give another role."))
        return cleaned


@admin.register(Membership, site=site)
class MembershipPage(TeamPage):
    permission: ClassVar[str] = EDIT_TEAM
    form = MembershipForm
    list_display = ("user", "team", "role")
    list_display_links = ("user",)
    list_filter = ("role", ("team", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("team", "user")
    search_fields = ("user__username",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("team", "person", "role", "reason") if obj is None else ("team", "user", "role", "reason")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return () if obj is None else ("team", "user")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if change:
            del form.base_fields["person"]
        return form

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = Team.objects.filter(pk__in=self.teams(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        user = obj.user if change else form.cleaned_data["person"]
        made = services.set_member(
            team=obj.team, user=user, role=obj.role, by=request.user, reason=form.cleaned_data["reason"]
        )
        obj.pk, obj.user = made.pk, user

    def why_not_deleted(self, thing: Any) -> str:
        return ""

    def remove(self, thing: Any, request: HttpRequest, reason: str) -> None:
        services.remove_member(thing, by=request.user, reason=reason)


# --- grants ----------------------------------------------------------------------------------------


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]
    to = name_field(gettext_lazy("Team"), gettext_lazy("The name of the team that is granted it."))
    permissions = forms.MultipleChoiceField(
        label=gettext_lazy("Permissions"),
        choices=Granted.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy(
            "Members use them as far as their role in their own team goes; a viewer only ever sees."
        ),
    )
    reason = reason_field()

    class Meta:
        model = TaskGrant
        fields = ("task",)

    def clean_to(self) -> Team:
        team = Team.objects.filter(name=self.cleaned_data["to"]).first()
        if team is None:
            raise ValidationError(_("There is no team %(name)s.") % {"name": self.cleaned_data["to"]})
        return team

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        task, team = cleaned.get("task"), cleaned.get("to")
        if task and team and task.team_id == team.pk:
            self.add_error("to", _("It owns the task; grants are for other teams."))
        return cleaned


@admin.register(TaskGrant, site=site)
class GrantPage(TeamPage):
    """Grants are given and taken back; each is one row."""

    permission: ClassVar[str] = EDIT_TEAM
    team_path = "task__team"
    form = GrantForm
    list_display = ("task", "team", "permission", "granted_by", "granted_at")
    list_filter = ("permission",)
    list_select_related = ("task", "team")
    search_fields = ("task__name", "team__name")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("task", "to", "permissions", "reason") if obj is None else self.list_display

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = Task.objects.filter(team__in=self.teams(request)).order_by("name")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        team = form.cleaned_data["to"]
        services.grant(
            obj.task,
            team=team,
            permissions=form.cleaned_data["permissions"],
            by=request.user,
            reason=form.cleaned_data["reason"],
        )
        made = TaskGrant.objects.filter(task=obj.task, team=team).latest("pk")
        obj.pk, obj.team, obj.permission = made.pk, team, made.permission

    def why_not_deleted(self, thing: Any) -> str:
        return ""

    def remove(self, thing: Any, request: HttpRequest, reason: str) -> None:
        services.revoke(thing, by=request.user, reason=reason)


# --- deployment groups -----------------------------------------------------------------------------


class GroupForm(forms.ModelForm):  # type: ignore[type-arg]
    reason = reason_field()

    class Meta:
        model = DeploymentGroup
        fields = ("team", "name")


@admin.register(DeploymentGroup, site=site)
class GroupPage(TeamPage):
    """A group's name is for good: nodes join it and definitions mention it by that."""

    permission: ClassVar[str] = EDIT_TASK
    form = GroupForm
    list_display = ("name", "team")
    list_filter = (("team", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("team",)
    search_fields = ("name",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("team", "name", "reason") if obj is None else ("team", "name")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = Team.objects.filter(pk__in=self.teams(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        reason = form.cleaned_data["reason"]
        obj.pk = services.create_group(team=obj.team, name=obj.name, by=request.user, reason=reason).pk
