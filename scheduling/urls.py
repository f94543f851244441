"""Addresses of scheduling."""

from django.urls import path

from scheduling.views import actions, batches, find, instances, preferences

urlpatterns = [
    path("find/", find.find, name="find"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("batches/", batches.batch_list, name="batch-list"),
    path("batches/changes/", batches.batch_list_changes, name="batch-list-changes"),
    path("batches/<int:pk>/", batches.batch_detail, name="batch-detail"),
    path("batches/<int:pk>/changes/", batches.batch_changes, name="batch-changes"),
    path("batches/<int:pk>/stop/", actions.batch_stop, name="batch-stop"),
    path("batches/<int:pk>/rerun/", actions.batch_rerun, name="batch-rerun"),
    path("instances/<int:pk>/", instances.instance_detail, name="instance-detail"),
    path("instances/<int:pk>/changes/", instances.instance_changes, name="instance-changes"),
    path("instances/<int:pk>/stop/", actions.instance_stop, name="instance-stop"),
    path("instances/<int:pk>/rerun/", actions.instance_rerun, name="instance-rerun"),
]
