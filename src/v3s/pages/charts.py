"""Charts as inline SVG: lines, bars and confusion matrices.

Text and axes have the colour of the page (``currentColor``), so that a chart works in light and dark mode. Series
colours are Okabe and Ito's colour-blind safe palette; lines also differ in their dashes. Every chart has its title for
screen readers. It is as wide as the page and is drawn narrow, so that its text stays readable on a phone; inside of the
axes there are only lines, and their names are in the legend.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from v3s.pages.templates import text_as_html

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("none", "7 3", "2 3", "9 3 2 3")
_THIN_DASHES = ("4 3", "1 4", "10 4", "10 3 1 3")  # of reference lines

_FONT_SIZE = 13
_NARROW, _WIDE = frozenset(" .,:;'|!()[]/-ijlftr"), frozenset("mwMW%@")
_WIDTH = 460  # of a line chart: on a phone of 400 pixels its letters are 10 pixels high
_LARGEST = 1.25  # maximum width of a chart, as a multiple of its own
_MAX_CLASSES_WITH_NUMBERS = 12
_LONGEST = 40  # letters of a name beside a chart: longer ones would leave the chart itself no room


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear map from values low..high to pixels start..stop; values outside this range are clipped."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    reference_lines: Mapping[str, float] | None = None,
    markers: Mapping[str, float] | None = None,
) -> Markup:
    """Draw named series of (x, y) points as lines; a series of one point is a dot.

    Args:
        series: Points by the name of the series, in drawing order.
        title: Title of the chart, also for screen readers.
        x_label: Name and unit of x.
        y_label: Name and unit of y.
        y_range: Lowest and highest y; points outside are drawn at the edge. By default the range of all values.
        reference_lines: Values of y to mark with a horizontal line, by name (for example chance); the legend has both.
        markers: Values of x to mark with a vertical line, by label.

    Returns:
        An ``<svg>`` element.

    Raises:
        ValueError: There is no series, a series has no points, or a number is not finite.
    """
    reference_lines, markers = reference_lines or {}, markers or {}
    _check_finite(title, {**reference_lines, **markers})
    points = _check_series(title, series)
    x_low, x_high = _extent([x for x, _ in points] + list(markers.values()))
    y_low, y_high = y_range or _extent([y for _, y in points] + list(reference_lines.values()))
    if not y_low < y_high:
        raise ValueError(f"chart {title!r}: y_range must go from low to high, got {y_range}")
    left = 32 + max(_length(f"{value:g}") for value in _ticks(y_low, y_high))
    right = max(12, 2 + _length(f"{x_high:g}") / 2)
    x_axis, y_axis = _Axis(x_low, x_high, left, _WIDTH - right), _Axis(y_low, y_high, 280, 64)
    strokes = {name: _stroke(*_look(order), 2) for order, name in enumerate(series)}
    references = {
        f"{name} {value:.3g}": (value, _stroke("currentColor", _THIN_DASHES[order % len(_THIN_DASHES)], 1))
        for order, (name, value) in enumerate(reference_lines.items())
    }
    entries = [*strokes.items(), *((name, stroke) for name, (_, stroke) in references.items())]
    legend, bottom = _legend(entries, x_axis.start, 342)
    is_whole = all(float(x).is_integer() for x, _ in points)
    parts = [
        _frame(x_axis, y_axis, x_label, y_label, is_whole=is_whole),
        *(_horizontal_line(value, stroke, x_axis, y_axis) for value, stroke in references.values()),
        *(_marker(name, value, x_axis, y_axis, row) for row, (name, value) in enumerate(markers.items())),
        *(_line(name, series[name], x_axis, y_axis, order) for order, name in enumerate(series)),
        legend,
    ]
    return _svg(title, _WIDTH, bottom, parts)


def epoch_chart(metrics: Sequence[Mapping[str, Any]], *terms: str, percent: bool = False, **more: Any) -> Markup | None:
    """Draw the sum of some terms over the epochs of a training, in both parts; None if no epoch has all of them.

    Args:
        metrics: The lines of metrics.jsonl.
        terms: Names in their parts "train" and "validation".
        percent: Draw shares, also those of the reference lines, in percent.
        more: What `line_chart` takes.
    """
    scale = 1
    if percent:
        scale, more["y_label"] = 100, f"{more['y_label']}, %"
        more["reference_lines"] = {name: 100 * value for name, value in more.get("reference_lines", {}).items()}
    curves = {
        part: [
            (line["epoch"], scale * sum(map(line[part].get, terms)))
            for line in metrics
            if set(terms) <= line[part].keys()
        ]
        for part in ("train", "validation")
    }
    drawn = {part: points for part, points in curves.items() if points}
    return line_chart(drawn, x_label="epoch", **more) if drawn else None


def bar_chart(
    values: Mapping[str, float], *, title: str, reference: Mapping[str, float] | float | None = None, note: str = ""
) -> Markup:
    """Draw one horizontal bar per value, from zero, with the number at its end.

    Args:
        values: Numbers by label, top to bottom.
        title: Title of the chart.
        reference: Numbers for comparison, drawn as dashed ticks: one for all bars, or one by label for some of them.
        note: Description of the reference, for example "chance" or "paper, Table 3"; printed below.

    Returns:
        An ``<svg>`` element.

    Raises:
        ValueError: There are no values, a number is not finite, or a reference has no bar.
    """
    ticks = dict(reference) if isinstance(reference, Mapping) else {}
    if isinstance(reference, (int, float)):
        ticks = dict.fromkeys(values, float(reference))
    if not values or ticks.keys() - values.keys():
        raise ValueError(f"chart {title!r} needs bars for {sorted(ticks) or 'its values'}, got {sorted(values)}")
    _check_finite(title, values)
    _check_finite(title, ticks)
    numbers = [0.0, *values.values(), *ticks.values()]
    left = 24 + max(_length(_short(label)) for label in values)
    x_axis = _Axis(min(numbers), max(numbers) if max(numbers) > min(numbers) else 1.0, left, left + 240)
    parts = [
        _bar(label, value, ticks.get(label), x_axis, 44 + 28 * row) for row, (label, value) in enumerate(values.items())
    ]
    bottom = 44 + 28 * len(values)
    if note:
        parts.append(_text(x_axis(0), bottom + 14, f"dashed: {note}"))
    return _svg(title, x_axis.stop + 70, bottom + (28 if note else 8), parts)


def confusion_matrix(counts: ArrayLike, labels: Sequence[str], *, title: str) -> Markup:
    """Draw a table of counts: rows are true classes, columns are predicted classes, shades are shares of the row.

    Args:
        counts: (num_classes, num_classes), not negative. Only cells with a count are drawn: most of a thousand classes'
            are empty. Counts are printed for up to 12 classes; a cell's tooltip always has the count and the share.
        labels: Class names, (num_classes,).
        title: Title of the matrix.

    Returns:
        An ``<svg>`` element.

    Raises:
        ValueError: The counts are not a square of finite numbers >= 0, or do not match the labels.
    """
    table = np.asarray(counts, np.float64)
    if not labels or table.shape != (len(labels),) * 2 or not (np.isfinite(table) & (table >= 0)).all():
        raise ValueError(
            f"matrix {title!r} needs finite counts >= 0 of shape ({len(labels)}, {len(labels)}) for its labels, "
            f"got shape {table.shape}: {table.tolist()}"
        )
    margin = 34 + max(_length(_short(label)) for label in labels)
    cell = max(28, 8 + _length(f"{table.max():g}")) if len(labels) <= _MAX_CLASSES_WITH_NUMBERS else 17
    top, end = 56.0, cell * len(labels)
    parts = [_text(margin + end / 2, 48, "predicted class", anchor="middle")]
    parts.append(_text(14, top + end / 2, "true class", anchor="middle", turn=-90))
    for row, label in enumerate(labels):
        middle = cell * (row + 0.5)
        parts.append(_text(margin - 6, top + middle + 4, _short(label), anchor="end", full=label))
        parts.append(_text(margin + middle + 4, top + end + 8, _short(label), anchor="end", turn=-90, full=label))
        parts += [
            _cell(table, labels, row, column, (margin + column * cell, top + row * cell), cell)
            for column in np.flatnonzero(table[row]).tolist()
        ]
    steps = [cell * number for number in range(len(labels) + 1)]
    grid = "".join(f"M{margin:.1f} {top + at:.1f}h{end:.1f}M{margin + at:.1f} {top:.1f}v{end:.1f}" for at in steps)
    parts.append(f'<path d="{grid}" stroke="currentColor" stroke-opacity="0.25"/>')
    return _svg(title, margin + end + 8, top + end + margin - 20, parts)


def _cell(
    table: np.ndarray, labels: Sequence[str], row: int, column: int, corner: tuple[float, float], side: float
) -> str:
    """Draw one cell of a confusion matrix: shade, tooltip and, if there is room, the count."""
    count, total = table[row, column], table[row].sum()
    share = count / total
    x, y = corner
    tip = f"true class {labels[row]}, predicted {labels[column]}: {count:g} of {total:g} ({share:.0%})"
    rectangle = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" fill="{PALETTE[0]}" '
        f'fill-opacity="{share:.3f}"><title>{text_as_html(tip)}</title></rect>'
    )
    if len(labels) > _MAX_CLASSES_WITH_NUMBERS:
        return rectangle
    colour = "#ffffff" if share > 0.85 else "currentColor"  # the shade is dark enough for white from about there
    return rectangle + _text(x + side / 2, y + side / 2 + 4, f"{count:g}", anchor="middle", colour=colour)


def _bar(label: str, value: float, tick: float | None, x_axis: _Axis, y: float) -> str:
    """Draw one bar with its label on the left and its number at the end."""
    start, stop = sorted((x_axis(0), x_axis(value)))
    number, number_x = f"{value:.4g}", stop + 6
    if tick is not None and -8 < x_axis(tick) - stop < 8 + _length(number):  # the dashed tick would cross the number
        number_x = max(stop, x_axis(tick)) + 6
    parts = [
        _text(x_axis.start - 8, y + 14, _short(label), anchor="end", full=label),
        f'<rect x="{start:.1f}" y="{y}" width="{max(stop - start, 1):.1f}" height="20" fill="{PALETTE[0]}"/>',
        _text(number_x, y + 14, number),
    ]
    if tick is not None:
        x = f"{x_axis(tick):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y - 4}" y2="{y + 24}" {_stroke("currentColor", "4 3", 2)}/>')
    return "".join(parts)


def _line(name: str, points: Sequence[tuple[float, float]], x_axis: _Axis, y_axis: _Axis, order: int) -> str:
    """Draw one series, with dots if there are few points."""
    colour, dash = _look(order)
    positions = [(x_axis(x), y_axis(y)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
    line = f'<polyline points="{path}" {_stroke(colour, dash, 2)}><title>{text_as_html(name)}</title></polyline>'
    dots = positions if len(positions) <= 30 else []
    return line + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in dots)


def _look(order: int) -> tuple[str, str]:
    """Return colour and dashes of a series, by its place."""
    return PALETTE[order % len(PALETTE)], _DASHES[order % len(_DASHES)]


def _horizontal_line(value: float, stroke: str, x_axis: _Axis, y_axis: _Axis) -> str:
    """Draw a line over the whole width."""
    y = f"{y_axis(value):.1f}"
    return f'<line x1="{x_axis.start}" x2="{x_axis.stop}" y1="{y}" y2="{y}" {stroke}/>'


def _marker(name: str, value: float, x_axis: _Axis, y_axis: _Axis, row: int) -> str:
    """Draw a dashed vertical line; labels alternate between two heights so that neighbours stay readable."""
    x, top = x_axis(value), y_axis.stop
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y_axis.start}" {_stroke("currentColor", "1 3", 1.5)}/>'
    anchor = "end" if x > (x_axis.start + x_axis.stop) / 2 else "start"
    return line + _text(x, top - 6 - 15 * (row % 2), name, anchor=anchor)


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str, *, is_whole: bool) -> str:
    """Draw the axes, round ticks, a faint grid and both labels."""
    parts = []
    for value in _ticks(y_axis.low, y_axis.high):
        y = y_axis(value)
        line = f'<line x1="{x_axis.start}" x2="{x_axis.stop}" y1="{y:.1f}" y2="{y:.1f}" '
        parts.append(line + _stroke("currentColor", "none", 1) + ' stroke-opacity="0.15"/>')
        parts.append(_text(x_axis.start - 8, y + 4, f"{value:g}", anchor="end"))
    for value in _ticks(x_axis.low, x_axis.high, fewest=3, is_whole=is_whole):
        parts.append(_text(x_axis(value), y_axis.start + 20, f"{value:g}", anchor="middle"))
    corner = f"{x_axis.start},{y_axis.stop} {x_axis.start},{y_axis.start} {x_axis.stop},{y_axis.start}"
    parts.append(f'<polyline points="{corner}" {_stroke("currentColor", "none", 1)}/>')
    parts.append(_text((x_axis.start + x_axis.stop) / 2, y_axis.start + 42, x_label, anchor="middle"))
    parts.append(_text(16, (y_axis.start + y_axis.stop) / 2, y_label, anchor="middle", turn=-90))
    return "".join(parts)


def _legend(entries: Sequence[tuple[str, str]], left: float, y: float) -> tuple[str, float]:
    """Draw the legend of (name, stroke) pairs, wrapped at the right edge; returns the drawing and the y below it."""
    parts, x = [], left
    for name, stroke in entries:
        width = 44 + _length(name)
        if x > left and x + width > _WIDTH:
            x, y = left, y + 20
        parts.append(f'<line x1="{x:.1f}" x2="{x + 26:.1f}" y1="{y - 4}" y2="{y - 4}" {stroke}/>')
        parts.append(_text(x + 32, y, name))
        x += width
    return "".join(parts), y + 12


def _ticks(low: float, high: float, *, fewest: int = 5, is_whole: bool = False) -> list[float]:
    """Return round numbers within low..high: about ``fewest`` to twice as many; only whole numbers on request."""
    rough = (high - low) / fewest * (1 + 1e-9)  # a power of ten may be rounded up
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= rough)
    step = max(step, 1.0) if is_whole else step
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [float(f"{number * step:.10g}") for number in numbers]


def _extent(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest number, with a margin if they are equal."""
    low, high = min(values), max(values)
    margin = 0 if high > low else 0.1 * abs(low) or 0.1  # a tenth of the least number is 0
    return low - margin, high + margin


def _check_series(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Refuse series that cannot be drawn; returns all points."""
    if not series:
        raise ValueError(f"chart {title!r} needs at least one series, got none")
    for name, points in series.items():
        if not points:
            raise ValueError(f"chart {title!r}: series {name!r} has no points")
        for x, y in points:
            _check_finite(title, {f"x of series {name}": x, f"y of series {name} at x = {x}": y})
    return [point for points in series.values() for point in points]


def _check_finite(title: str, values: Mapping[str, float]) -> None:
    """Refuse NaN and infinity; the message contains the name of the number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"chart {title!r}: {name} is {value}; only finite numbers can be drawn")


def _length(text: str) -> float:
    """Return an upper estimate of the width of a line of text, in pixels, in the wider of the usual fonts."""
    widths = (
        5.3
        if letter in _NARROW
        else 13.0
        if letter in _WIDE or not letter.isascii()
        else 10.0
        if letter.isupper()
        else 8.3
        for letter in text
    )
    return sum(widths)


def _short(name: str) -> str:
    """A name of at most 40 letters: of a longer one the beginning and the end, in which names mostly differ."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[1 - _LONGEST // 2 :]}"


def _stroke(colour: str, dash: str, width: float) -> str:
    """Return the attributes of an unfilled line."""
    return f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}"'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    turn: float = 0,
    colour: str = "currentColor",
    full: str = "",
) -> str:
    """Draw one line of text, escaped; what was cut is whole in its tooltip."""
    rotate = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    tip = f"<title>{text_as_html(full)}</title>" if full not in ("", text) else ""
    line = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{rotate}>'
    return f"{line}{tip}{text_as_html(text)}</text>"


def _svg(title: str, width: float, height: float, parts: Iterable[str]) -> Markup:
    """Assemble the chart, which shrinks and grows with the page."""
    width = max(width, 24 + 1.25 * _length(title))
    name = text_as_html(title)
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, sans-serif" font-size="{_FONT_SIZE}" '
        f'style="display:block;width:100%;max-width:{_LARGEST * width:.0f}px;height:auto">'
        f'<title>{name}</title><text x="8" y="20" font-weight="600" font-size="15" fill="currentColor">{name}</text>'
        f"{''.join(parts)}</svg>"
    )
