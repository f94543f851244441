"""Addresses of scheduling."""

from django.urls import path

from scheduling.views import actions, batch, batches, find, instances, log, preferences

urlpatterns = [
    path("find/", find.find, name="find"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("batches/", batches.batch_list, name="batch-list"),
    path("batches/changes/", batches.batch_list_changes, name="batch-list-changes"),
    path("batches/<int:pk>/", batch.batch_detail, name="batch-detail"),
    path("batches/<int:pk>/changes/", batch.batch_changes, name="batch-changes"),
    path("batches/<int:pk>/stop/", actions.batch, {"verb": "stop"}, name="batch-stop"),
    path("batches/<int:pk>/rerun/", actions.batch, {"verb": "rerun"}, name="batch-rerun"),
    path("batches/<int:pk>/instances/stop/", actions.several, {"verb": "stop"}, name="instances-stop"),
    path("batches/<int:pk>/instances/rerun/", actions.several, {"verb": "rerun"}, name="instances-rerun"),
    path("instances/<int:pk>/", instances.instance_detail, name="instance-detail"),
    path("instances/<int:pk>/changes/", instances.instance_changes, name="instance-changes"),
    path("instances/<int:pk>/stop/", actions.instance, {"verb": "stop"}, name="instance-stop"),
    path("instances/<int:pk>/rerun/", actions.instance, {"verb": "rerun"}, name="instance-rerun"),
    path("instances/<int:pk>/log/", log.log_part, name="instance-log"),
    path("instances/<int:pk>/log/download/", log.log_download, name="instance-log-download"),
]
