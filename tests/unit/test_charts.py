from hypothesis import given
from hypothesis import strategies as st

from scheduling import charts
from scheduling.charts import Run


def share(text: str) -> float:
    return float(text.removesuffix("%")) / 100


def test_axes_end_at_the_first_round_figure_that_holds_everything() -> None:
    assert charts.clock_ticks(37) == [0, 10, 20, 30, 40]
    assert charts.clock_ticks(5000) == [0, 1800, 3600, 5400]
    assert charts.clock_ticks(0.3) == [0, 0.1, 0.2, 0.3]
    assert charts.clock_ticks(400_000) == [0, 172_800, 345_600, 518_400]
    assert charts.count_ticks(0) == [0, 1]
    assert charts.count_ticks(7) == [0, 2, 4, 6, 8]
    assert charts.count_ticks(143) == [0, 50, 100, 150]


@given(st.floats(0.001, 1e8))
def test_an_axis_has_few_ticks_and_holds_its_highest_value(highest: float) -> None:
    for ticks in (charts.clock_ticks(highest), charts.count_ticks(int(highest))):
        assert 2 <= len(ticks) <= 5
        assert ticks[-1] >= int(highest)


def test_a_quantile_is_the_value_that_enough_do_not_exceed() -> None:
    assert charts.quantile([3, 1, 2], 0.5) == 2
    assert charts.quantile(list(range(1, 101)), 0.95) == 95
    assert charts.quantile([7], 0.95) == 7
    assert charts.quantile([], 0.5) is None


def test_the_success_rate_is_over_what_was_judged() -> None:
    assert charts.success_rate(["success", "failed", "running", "success", "success"]) == 0.75
    assert charts.success_rate(["running"]) is None


def test_runs_stand_in_their_order_at_the_height_of_what_they_took() -> None:
    chart = charts.durations([Run(1, "success", 10), Run(2, "running", None), Run(3, "failed", 40)])
    assert [(mark.run.pk, mark.x, mark.y) for mark in chart.points if mark.run] == [
        (1, "16.67%", "75.00%"),
        (3, "83.33%", "0.00%"),
    ]
    assert chart.median == charts.Level(10, "75.00%")
    assert [tick.value for tick in chart.ticks] == [0, 10, 20, 30, 40]


def test_a_run_that_took_far_longer_than_all_others_does_not_flatten_the_chart() -> None:
    chart = charts.durations([*(Run(pk, "success", 10) for pk in range(30)), Run(99, "failed", 3000)])
    assert chart.ticks[-1].value == 20
    assert [(mark.y, mark.beyond) for mark in chart.points[-2:]] == [("50.00%", False), ("0.00%", True)]


def test_a_chart_of_nothing_is_empty() -> None:
    chart = charts.durations([])
    assert (chart.points, chart.median, chart.p95) == ([], None, None)
    assert charts.sparkline([], 20) == {}
    assert charts.stack([], ["success"]).columns == []


def test_a_sparkline_ends_at_the_right_and_shows_every_run() -> None:
    runs = [Run(1, "success", 0), Run(2, "failed", 4.0), Run(3, "success", 2.0)]
    assert charts.sparkline(runs, 4) == {
        "success": "M6 20v-3h5v3zM18 20v-10h5v10z",
        # A failure is underlined too.
        "failed": "M12 20v-20h5v20zM12 22h5v3h-5z",
    }
    many = charts.sparkline([Run(pk, "success", 1) for pk in range(9)], 4)
    assert many["success"].count("M") == 4


def test_the_parts_of_a_column_stand_upon_each_other() -> None:
    stack = charts.stack([{"success": 6, "failed": 2}, {}], ["success", "failed"])
    full, empty = stack.columns
    assert [(part.state, part.y, part.height) for part in full.parts] == [
        ("success", "25.00%", "75.00%"),
        ("failed", "0.00%", "25.00%"),
    ]
    assert (full.total, full.x, full.width, full.middle) == (8, "0.00%", "50.00%", "25.00%")
    assert (empty.total, empty.parts, empty.x) == (0, [], "50.00%")


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 10**6)), max_size=24))
def test_no_part_leaves_the_drawing(slots: list[dict[str, int]]) -> None:
    for column in charts.stack(slots, ["a", "b"]).columns:
        for part in column.parts:
            assert 0 <= share(part.y) <= share(part.y) + share(part.height) <= 1.0002
