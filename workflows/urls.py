"""Addresses of workflows."""

from django.urls import path

from workflows import pages
from workflows.views import (
    backfill_new,
    backfills,
    cycle,
    cycle_actions,
    cycles,
    cycles_bulk,
    suggest,
    workflow,
    workflow_actions,
    workflows,
)

pages.register()

urlpatterns = [
    path("backfills/", backfills.backfill_list, name="backfill-list"),
    path("backfills/changes/", backfills.backfill_list_changes, name="backfill-list-changes"),
    path("backfills/<int:pk>/", backfills.backfill_detail, name="backfill-detail"),
    path("backfills/<int:pk>/changes/", backfills.backfill_changes, name="backfill-changes"),
    path("backfills/<int:pk>/pause/", backfills.backfill_act, {"verb": "pause"}, name="backfill-pause"),
    path("backfills/<int:pk>/resume/", backfills.backfill_act, {"verb": "resume"}, name="backfill-resume"),
    path(
        "backfills/<int:pk>/terminate/",
        backfills.backfill_act,
        {"verb": "terminate"},
        name="backfill-terminate",
    ),
    path("cycles/", cycles.cycle_list, name="cycle-list"),
    path("cycles/changes/", cycles.cycle_list_changes, name="cycle-list-changes"),
    path("cycles/count/", cycles.cycle_list_count, name="cycle-list-count"),
    path("cycles/freeze/", cycles_bulk.cycles_act, {"verb": "freeze"}, name="cycles-freeze"),
    path("cycles/mark-success/", cycles_bulk.cycles_act, {"verb": "mark-success"}, name="cycles-mark-success"),
    path("cycles/rerun/", cycles_bulk.cycles_act, {"verb": "rerun"}, name="cycles-rerun"),
    path("cycles/stop/", cycles_bulk.cycles_act, {"verb": "stop"}, name="cycles-stop"),
    path("cycles/unfreeze/", cycles_bulk.cycles_act, {"verb": "unfreeze"}, name="cycles-unfreeze"),
    path("cycles/<int:pk>/", cycle.cycle_detail, name="cycle-detail"),
    path("cycles/<int:pk>/changes/", cycle.cycle_changes, name="cycle-changes"),
    path("cycles/<int:pk>/freeze/", cycle_actions.cycle_freeze, name="cycle-freeze"),
    path("cycles/<int:pk>/mark-success/", cycle_actions.cycle_mark_success, name="cycle-mark-success"),
    path("cycles/<int:pk>/node/", cycle.cycle_node, name="cycle-node"),
    path("cycles/<int:pk>/rerun/", cycle_actions.cycle_rerun, name="cycle-rerun"),
    path("cycles/<int:pk>/stop/", cycle_actions.cycle_stop, name="cycle-stop"),
    path("cycles/<int:pk>/unfreeze/", cycle_actions.cycle_unfreeze, name="cycle-unfreeze"),
    path("suggest/workflows/", suggest.suggest_workflows, name="suggest-workflows"),
    path("workflows/", workflows.workflow_list, name="workflow-list"),
    path("workflows/changes/", workflows.workflow_list_changes, name="workflow-list-changes"),
    path("workflows/<int:pk>/", workflow.workflow_detail, name="workflow-detail"),
    path("workflows/<int:pk>/backfill/", backfill_new.backfill_new, name="workflow-backfill"),
    path("workflows/<int:pk>/changes/", workflow.workflow_changes, name="workflow-changes"),
    path("workflows/<int:pk>/days/changes/", workflow.workflow_days, name="workflow-days"),
    path("workflows/<int:pk>/disable/", workflow_actions.workflow_disable, name="workflow-disable"),
    path("workflows/<int:pk>/enable/", workflow_actions.workflow_enable, name="workflow-enable"),
    path("workflows/<int:pk>/run/", workflow_actions.workflow_run, name="workflow-run"),
]
