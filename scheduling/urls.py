"""Addresses of scheduling."""

from django.urls import path

from scheduling.views import (
    actions,
    batch,
    batches,
    bulk,
    find,
    instances,
    journal,
    preferences,
    saved,
    suggest,
)

urlpatterns = [
    path("find/", find.find, name="find"),
    path("journal/", journal.journal, name="journal"),
    path("journal/changes/", journal.journal_changes, name="journal-changes"),
    path("journal/<int:pk>/", journal.journal_entry, name="journal-entry"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("batches/", batches.batch_list, name="batch-list"),
    path("batches/changes/", batches.batch_list_changes, name="batch-list-changes"),
    path("batches/count/", batches.batch_list_count, name="batch-list-count"),
    path("batches/stop/", bulk.batches_stop, name="batches-stop"),
    path("batches/rerun/", bulk.batches_rerun, name="batches-rerun"),
    path("batches/<int:pk>/", batch.batch_detail, name="batch-detail"),
    path("batches/<int:pk>/changes/", batch.batch_changes, name="batch-changes"),
    path("batches/<int:pk>/stop/", actions.batch_stop, name="batch-stop"),
    path("batches/<int:pk>/rerun/", actions.batch_rerun, name="batch-rerun"),
    path("instances/<int:pk>/", instances.instance_detail, name="instance-detail"),
    path("instances/<int:pk>/changes/", instances.instance_changes, name="instance-changes"),
    path("instances/<int:pk>/stop/", actions.instance_stop, name="instance-stop"),
    path("instances/<int:pk>/rerun/", actions.instance_rerun, name="instance-rerun"),
    path("suggest/tasks/", suggest.suggest_tasks, name="suggest-tasks"),
    path("suggest/people/", suggest.suggest_people, name="suggest-people"),
    path("saved-filters/", saved.saved_add, name="saved-filter-add"),
    path("saved-filters/<int:pk>/rename/", saved.saved_rename, name="saved-filter-rename"),
    path("saved-filters/<int:pk>/default/", saved.saved_default, name="saved-filter-default"),
    path("saved-filters/<int:pk>/delete/", saved.saved_delete, name="saved-filter-delete"),
]
