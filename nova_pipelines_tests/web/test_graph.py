"""The drawing of a workflow: nothing overlaps, everything is inside, and the way taken is the one that was taken."""

from __future__ import annotations

from itertools import combinations

from hypothesis import HealthCheck, given, settings

from nova_pipelines.compiler.plan import make_plan
from nova_pipelines.nodes.registry import definition_from
from nova_pipelines.web.pages.graph import HEIGHT, MAX_NODES, WIDTH, State, draw
from nova_pipelines_tests.strategies import Workflow, valid_graphs


@given(valid_graphs())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_workflow_can_be_drawn(workflow: Workflow):
    plan = make_plan(definition_from(workflow.data))
    drawing = draw(plan, {})
    if len(plan.steps) > MAX_NODES:
        assert drawing is None
        return
    assert drawing is not None
    assert {box.id for box in drawing.boxes} == {step.node.id for step in plan.steps}
    for box in drawing.boxes:
        assert box.x - WIDTH / 2 >= 0
        assert box.x + WIDTH / 2 <= drawing.width + 0.01
        assert 0 <= box.y <= drawing.height - HEIGHT + 0.01
    for one, other in combinations(drawing.boxes, 2):
        assert abs(one.x - other.x) >= WIDTH - 0.01 or abs(one.y - other.y) >= HEIGHT
    assert not any(curve.taken for curve in drawing.curves)


def test_only_the_way_that_was_taken_counts():
    """A condition may be called like the target of another way."""
    nodes = [
        {"id": "start", "type": "start", "next": "choose"},
        {"id": "choose", "type": "decision", "expression": "context.way", "next": {"b": "c", "a": "b"}},
        {"id": "b", "type": "end"},
        {"id": "c", "type": "end"},
    ]
    plan = make_plan(definition_from({"name": "Ways", "nodes": nodes}))
    states = {"start": State("success", 0.1, path="choose"), "choose": State("success", 0.2, path="b")}
    drawing = draw(plan, states)
    assert drawing is not None
    assert [curve.condition for curve in drawing.curves if curve.taken] == ["", "b"]
    failed = draw(plan, {"start": State("success", path="choose"), "choose": State("failed", error="no", path="b")})
    assert failed is not None
    assert [curve.condition for curve in failed.curves if curve.taken] == [""]
