from workflows.models.backfills import Backfill, Order
from workflows.models.cycles import Cycle, CycleDependency, CycleInstance, NodeRun, RunType, Stopping
from workflows.models.definitions import (
    Mode,
    Workflow,
    WorkflowDependency,
    WorkflowEdge,
    WorkflowNode,
    WorkflowRevision,
)

__all__ = [
    "Backfill",
    "Cycle",
    "CycleDependency",
    "CycleInstance",
    "Mode",
    "NodeRun",
    "Order",
    "RunType",
    "Stopping",
    "Workflow",
    "WorkflowDependency",
    "WorkflowEdge",
    "WorkflowNode",
    "WorkflowRevision",
]
