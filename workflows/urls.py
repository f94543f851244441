"""Addresses of workflows."""

from django.urls import path

from workflows.views import cycle, cycle_actions

urlpatterns = [
    path("cycles/<int:pk>/", cycle.cycle_detail, name="cycle-detail"),
    path("cycles/<int:pk>/changes/", cycle.cycle_changes, name="cycle-changes"),
    path("cycles/<int:pk>/node/", cycle.cycle_node, name="cycle-node"),
    path("cycles/<int:pk>/rerun/", cycle_actions.cycle_rerun, name="cycle-rerun"),
    path("cycles/<int:pk>/stop/", cycle_actions.cycle_stop, name="cycle-stop"),
    path("cycles/<int:pk>/mark-success/", cycle_actions.cycle_mark_success, name="cycle-mark-success"),
    path("cycles/<int:pk>/freeze/", cycle_actions.cycle_freeze, name="cycle-freeze"),
    path("cycles/<int:pk>/unfreeze/", cycle_actions.cycle_unfreeze, name="cycle-unfreeze"),
]
