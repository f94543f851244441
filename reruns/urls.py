"""Addresses of reruns."""

from django.urls import path

from reruns.views import reruns

urlpatterns = [
    path("reruns/", reruns.rerun_list, name="rerun-list"),
]
