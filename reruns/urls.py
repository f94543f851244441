"""Addresses of reruns."""

from django.urls import path

from reruns import entries, pages
from reruns.views import (
    draft_downstream,
    draft_nodes,
    draft_plan,
    draft_settings,
    draft_source,
    rerun,
    rerun_actions,
    reruns,
)

entries.register()
pages.register()

urlpatterns = [
    path("reruns/", reruns.rerun_list, name="rerun-list"),
    path("reruns/changes/", reruns.rerun_list_changes, name="rerun-list-changes"),
    path("reruns/new/", draft_source.rerun_new, name="rerun-new"),
    path("reruns/<int:pk>/", rerun.rerun_detail, name="rerun-detail"),
    path("reruns/<int:pk>/changes/", rerun.rerun_changes, name="rerun-changes"),
    path("reruns/<int:pk>/discard/", rerun_actions.rerun_discard, name="rerun-discard"),
    path("reruns/<int:pk>/downstream/", draft_downstream.draft_downstream, name="draft-downstream"),
    path("reruns/<int:pk>/nodes/<int:cycle>/", draft_nodes.draft_nodes, name="draft-nodes"),
    path(
        "reruns/<int:pk>/take-content/",
        rerun_actions.rerun_act,
        {"verb": "take-content"},
        name="rerun-take-content",
    ),
    path("reruns/<int:pk>/pause/", rerun_actions.rerun_act, {"verb": "pause"}, name="rerun-pause"),
    path("reruns/<int:pk>/plan/", draft_plan.draft_plan, name="draft-plan"),
    path("reruns/<int:pk>/resume/", rerun_actions.rerun_act, {"verb": "resume"}, name="rerun-resume"),
    path("reruns/<int:pk>/settings/", draft_settings.draft_settings, name="draft-settings"),
    path("reruns/<int:pk>/source/", draft_source.draft_source, name="draft-source"),
    path("reruns/<int:pk>/take-out/", rerun_actions.rerun_take_out, name="rerun-take-out"),
    path("reruns/<int:pk>/terminate/", rerun_actions.rerun_act, {"verb": "terminate"}, name="rerun-terminate"),
]
