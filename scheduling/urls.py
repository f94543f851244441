"""Addresses of scheduling."""

from django.urls import path

from scheduling.views import actions, batches, instances, nodes, overview, task_actions, tasks

urlpatterns = [
    path("", overview.overview, name="home"),
    path("changes/", overview.overview_changes, name="overview-changes"),
    path("timeline/", overview.overview_timeline, name="overview-timeline"),
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
    path("tasks/", tasks.task_list, name="task-list"),
    path("tasks/changes/", tasks.task_list_changes, name="task-list-changes"),
    path("tasks/<int:pk>/", tasks.task_detail, name="task-detail"),
    path("tasks/<int:pk>/changes/", tasks.task_changes, name="task-changes"),
    path("tasks/<int:pk>/run/", task_actions.task_run, name="task-run"),
    path("tasks/<int:pk>/enable/", task_actions.task_enable, name="task-enable"),
    path("tasks/<int:pk>/disable/", task_actions.task_disable, name="task-disable"),
    path("nodes/", nodes.node_list, name="node-list"),
    path("nodes/changes/", nodes.node_list_changes, name="node-list-changes"),
    path("nodes/<int:pk>/drain/", nodes.node_drain, name="node-drain"),
    path("nodes/<int:pk>/undrain/", nodes.node_undrain, name="node-undrain"),
]
