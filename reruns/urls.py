"""Addresses of reruns."""

from django.urls import path

from reruns import pages
from reruns.views import rerun, rerun_actions, reruns

pages.register()

urlpatterns = [
    path("reruns/", reruns.rerun_list, name="rerun-list"),
    path("reruns/changes/", reruns.rerun_list_changes, name="rerun-list-changes"),
    path("reruns/<int:pk>/", rerun.rerun_detail, name="rerun-detail"),
    path("reruns/<int:pk>/changes/", rerun.rerun_changes, name="rerun-changes"),
    path("reruns/<int:pk>/discard/", rerun_actions.rerun_discard, name="rerun-discard"),
    path("reruns/<int:pk>/pause/", rerun_actions.rerun_act, {"verb": "pause"}, name="rerun-pause"),
    path("reruns/<int:pk>/resume/", rerun_actions.rerun_act, {"verb": "resume"}, name="rerun-resume"),
    path("reruns/<int:pk>/take-out/", rerun_actions.rerun_take_out, name="rerun-take-out"),
    path("reruns/<int:pk>/terminate/", rerun_actions.rerun_act, {"verb": "terminate"}, name="rerun-terminate"),
]
