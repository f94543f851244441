"""Addresses of reruns."""

from django.urls import path

from reruns import entries
from reruns.views import (
    draft_downstream,
    draft_nodes,
    draft_plan,
    draft_settings,
    draft_source,
    reruns,
)

entries.register()

urlpatterns = [
    path("reruns/", reruns.rerun_list, name="rerun-list"),
    path("reruns/new/", draft_source.rerun_new, name="rerun-new"),
    path("reruns/<int:pk>/downstream/", draft_downstream.draft_downstream, name="draft-downstream"),
    path("reruns/<int:pk>/nodes/<int:cycle>/", draft_nodes.draft_nodes, name="draft-nodes"),
    path("reruns/<int:pk>/plan/", draft_plan.draft_plan, name="draft-plan"),
    path("reruns/<int:pk>/settings/", draft_settings.draft_settings, name="draft-settings"),
    path("reruns/<int:pk>/source/", draft_source.draft_source, name="draft-source"),
]
