"""Charts are valid XML, draw points at the right positions, show all names and refuse invalid values."""

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import v3s
from v3s.pages.charts import bar_chart, confusion_matrix, epoch_chart, line_chart
from v3s.pages.scatter import COLOURS, Group, scatter

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> dict[str, ElementTree.Element]:
    return {element.text or "": element for element in parse(svg).iter(f"{SVG}text")}


def lines(**series: list[tuple[float, float]]) -> str:
    return line_chart(series, title="Loss", x_label="epoch", y_label="nats")


def test_line_chart_shows_all_names() -> None:
    svg = line_chart(
        {"train <1>": [(0, 3), (10, 1)], "val": [(0, 3), (10, 2)]},
        title="Loss & <script>",
        x_label="epoch",
        y_label="nats",
        reference_lines={"chance": 2.5},
        markers={"best": 7},
    )
    root = parse(svg)
    assert root.get("aria-label") == "Loss & <script>"
    assert root.get("role") == "img"
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == "Loss & <script>"
    assert {"epoch", "nats", "train <1>", "val", "chance 2.5", "best"} <= texts(svg).keys()
    assert "<script>" not in svg


def test_points_agree_with_the_ticks() -> None:
    svg = lines(a=[(0, 0), (5, 20), (10, 10)])
    tick = texts(svg)
    circles = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in parse(svg).iter(f"{SVG}circle")]
    assert circles[2][0] == pytest.approx(float(tick["10"].get("x", "")), abs=0.1)
    assert circles[1][1] == pytest.approx(float(tick["20"].get("y", "")) - 4, abs=0.1)
    assert circles[1][1] < circles[2][1] < circles[0][1], "larger values are drawn higher"


def test_a_y_range_keeps_points_at_its_edge() -> None:
    svg = line_chart({"a": [(0, -5), (1, 0), (2, 9)]}, title="t", x_label="x", y_label="y", y_range=(0, 1))
    heights = [float(c.get("cy", "")) for c in parse(svg).iter(f"{SVG}circle")]
    assert heights[0] == heights[1] > heights[2]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5), st.sampled_from([1.0, 1e-3, 0.1]))
@example([1.0, 4.0], 1e-3)  # a third of the range is a power of ten, but for rounding
@example([0.0, 0.3], 1.0)
@example([5e-324], 1.0)  # a tenth of it is 0
def test_all_finite_numbers_are_drawn_with_some_ticks(values: list[float], scale: float) -> None:
    svg = lines(a=[(place, value * scale) for place, value in enumerate(values)])
    numbers = [text for text in texts(svg) if text not in ("Loss", "epoch", "nats", "a")]
    assert len(numbers) >= 2


def test_long_numbers_leave_room_for_the_name_of_the_axis() -> None:
    svg = line_chart({"a": [(0, 0.0185), (1, 0.0205)]}, title="t", x_label="epoch", y_label="learning rate")
    starts = [float(text.get("x", "")) - 8.3 * len(name) for name, text in texts(svg).items() if name.startswith("0.0")]
    assert len(starts) >= 4
    assert min(starts) >= float(texts(svg)["learning rate"].get("x", "")) + 4


def test_names_are_outside_of_the_axes() -> None:
    """So none covers a curve."""
    svg = line_chart(
        {"train": [(0, 3), (10, 1)], "validation": [(0, 3), (10, 2)]},
        title="Loss", x_label="epoch", y_label="nats", reference_lines={"chance": 2.5, "best": 2}, markers={"kept": 7},
    )  # fmt: skip
    axes = next(line for line in parse(svg).iter(f"{SVG}polyline") if line.get("stroke") == "currentColor")
    corners = [tuple(map(float, point.split(","))) for point in (axes.get("points") or "").split()]
    (left, top), (_, bottom), (right, _) = corners
    for name, text in texts(svg).items():
        x, y = float(text.get("x", "")), float(text.get("y", ""))
        assert not (left < x < right and top < y < bottom), name


def test_shares_are_drawn_in_percent() -> None:
    metrics = [
        {"epoch": epoch, "train": {"accuracy": 0.1 * epoch}, "validation": {"accuracy": 0.125}} for epoch in (1, 2, 3)
    ]
    svg = epoch_chart(
        metrics, "accuracy", percent=True, title="t", y_label="accuracy", reference_lines={"chance": 0.05}
    )
    assert {"accuracy, %", "5", "30", "chance 5"} <= texts(svg or "").keys()


@pytest.mark.parametrize(
    "svg",
    [
        lines(train=[(0, 3), (10, 1)], validation=[(0, 3), (10, 1)]),
        bar_chart({"with the whole network": 0.4, "without": 0.2}, title="t"),
        confusion_matrix(np.full((18, 18), 999), ["projection 0.65 bottom"] * 18, title="t"),
        confusion_matrix(np.full((11, 11), 99), ["speed 1 then 2"] * 11, title="t"),
    ],
)
def test_charts_shrink_with_the_page_and_stay_readable(svg: str) -> None:
    """On a page of 400 pixels, of which 368 are for the chart, letters are at least 9 pixels high."""
    root = parse(svg)
    assert "width:100%" in (root.get("style") or "")
    assert "min-width" not in (root.get("style") or "")
    width = float((root.get("viewBox") or "").split()[2])
    assert float(root.get("font-size", "")) * min(1.0, 368 / width) >= 9


@pytest.mark.parametrize("points", [[(3.0, 0.0)], [(3.0, 1e-9)], [(0.0, 5.0), (1.0, 5.0)], [(0.0, 1e6), (1e6, 3e6)]])
def test_one_point_and_constant_series_are_drawn(points: list[tuple[float, float]]) -> None:
    svg = lines(a=points)
    assert len(list(parse(svg).iter(f"{SVG}circle"))) == len(points)
    assert "nan" not in svg
    assert "inf" not in svg.replace("infinite", "")


def test_many_series_have_distinct_strokes() -> None:
    svg = lines(**{f"series {n}": [(0.0, float(n)), (1.0, float(n))] for n in range(8)})
    strokes = [(p.get("stroke"), p.get("stroke-dasharray")) for p in parse(svg).iter(f"{SVG}polyline")]
    assert len(set(strokes)) == 9  # eight series and the axes


def test_lines_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one series"):
        lines()
    with pytest.raises(ValueError, match="series 'val' has no points"):
        lines(train=[(0, 1)], val=[])
    with pytest.raises(ValueError, match=r"y of series train at x = 3 is nan"):
        lines(train=[(3, math.nan)])
    with pytest.raises(ValueError, match="x of series train is inf"):
        lines(train=[(math.inf, 1)])
    with pytest.raises(ValueError, match="y_range must go from low to high"):
        line_chart({"a": [(0, 1)]}, title="t", x_label="x", y_label="y", y_range=(1, 1))


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_chart({"v3s": 40, "scratch": 10, "worse": -10}, title="t", reference={"v3s": 79.1}, note="paper")
    widths = [float(bar.get("width", "")) for bar in parse(svg).iter(f"{SVG}rect")]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.3)
    assert widths[1] == pytest.approx(widths[2], abs=0.2)
    assert {"v3s", "scratch", "40", "10", "-10", "dashed: paper"} <= texts(svg).keys()
    assert len(list(parse(svg).iter(f"{SVG}line"))) == 1
    everywhere = bar_chart({"a": 1, "b": 2}, title="t", reference=1.5)
    assert len(list(parse(everywhere).iter(f"{SVG}line"))) == 2


def test_bars_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="needs bars"):
        bar_chart({}, title="t")
    with pytest.raises(ValueError, match="a is nan"):
        bar_chart({"a": math.nan}, title="t")
    with pytest.raises(ValueError, match=r"needs bars for \['b'\]"):
        bar_chart({"a": 1}, title="t", reference={"b": 1})
    assert bar_chart({"a": 0}, title="t").count("<rect") == 1


def test_confusion_matrix_shades_by_row_and_prints_counts() -> None:
    svg = confusion_matrix([[3, 1], [0, 0]], ["walk", "run <b>"], title="t")
    cells = list(parse(svg).iter(f"{SVG}rect"))
    assert [cell.get("fill-opacity") for cell in cells] == ["0.750", "0.250"], "an empty cell is drawn"
    assert cells[1][0].text == "true class walk, predicted run <b>: 1 of 4 (25%)"
    assert {"3", "1", "walk", "run <b>", "true class", "predicted class"} <= texts(svg).keys()


def test_large_confusion_matrix_has_no_numbers_in_its_cells() -> None:
    svg = confusion_matrix(np.full((13, 13), 777), [f"class {n}" for n in range(13)], title="t")
    assert "777" not in texts(svg)
    assert len(list(parse(svg).iter(f"{SVG}rect"))) == 169


def test_a_confusion_matrix_of_a_thousand_classes_is_small() -> None:
    """A page of it has as many cells as there were videos at most: all cells would be more than 200 MB."""
    assert len(confusion_matrix(np.eye(1000), [f"class {n}" for n in range(1000)], title="t")) < 1_000_000


def test_a_long_name_leaves_room_for_the_chart() -> None:
    """The name of a class may have 100 letters: the whole chart would shrink until all of it fits."""
    name = "b" * 60 + " <i>" + "e" * 140
    for svg, width in (
        (confusion_matrix(np.eye(2), [name, "run"], title="t"), 500),
        (bar_chart({name: 1}, title="t"), 720),
    ):
        assert float(parse(svg).get("viewBox", "").split()[2]) < width
        (shown,) = {
            text.text or text[0].tail for text in parse(svg).iter(f"{SVG}text") if "…" in "".join(text.itertext())
        }
        assert shown == "b" * 20 + "…" + "e" * 19
        assert name in {tip.text for tip in parse(svg).iter(f"{SVG}title")}


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, -1], [0, 1]], [[math.nan, 1], [0, 1]], [1, 2]])
def test_invalid_counts_are_refused(counts: list[object]) -> None:
    with pytest.raises(ValueError, match=r"needs finite counts >= 0 of shape \(2, 2\)"):
        confusion_matrix(np.asarray(counts), ["a", "b"], title="t")


def test_clusters_look_as_in_the_live_map() -> None:
    """Twelve colours, then they repeat in another shape; a line shows where the map ends."""
    script = (Path(v3s.__file__).parent / "serve/static/map.js").read_text()
    numbers = re.findall(r"\[(\d+), (\d+), (\d+)\]", script.split("const COLOURS")[1].split("];")[0])
    assert [f"#{int(red):02X}{int(green):02X}{int(blue):02X}" for red, green, blue in numbers] == list(COLOURS)
    groups = [Group(str(number), "", np.zeros((1, 2), np.float32)) for number in range(14)]
    root = parse(str(scatter(groups, title="map")))
    paths = [path.attrib for path in root.iter(f"{SVG}path")]
    assert len({path["fill"] for path in paths[:12]}) == 12
    assert len({path["d"] for path in paths[:12]}) == 1
    assert paths[12]["fill"] == paths[0]["fill"]
    assert paths[12]["d"] != paths[0]["d"]
    assert len(list(root.iter(f"{SVG}rect"))) == 1


def test_names_of_groups_hide_no_group_of_one_point_and_no_other_name() -> None:
    """Points at an edge of the map, and some so near to each other that names beside them would overlap."""
    points = [(0.5 + 0.012 * (number % 3), 1 - 0.01 * (number // 3)) for number in range(9)] + [(0, 0), (1, 1)]
    groups = [Group(str(number), "", np.array([point], np.float32)) for number, point in enumerate(points, start=1)]
    svg = str(scatter(groups, title="map"))
    boxes = [
        (float(text.attrib["x"]), float(text.attrib["y"]) - 5, 4.5 * len(name), 6.0)
        for name, text in texts(svg).items()
    ]
    assert len(boxes) == len(points)
    dots = [(14 + 572 * x, 14 + 572 * (1 - y), 3.0, 3.0) for x, y in points]
    for number, (x, y, across, down) in enumerate(boxes):
        assert across <= x <= 600 - across
        assert down <= y <= 600 - down
        for x2, y2, across2, down2 in boxes[:number] + dots:
            assert abs(x - x2) >= across + across2 or abs(y - y2) >= down + down2
