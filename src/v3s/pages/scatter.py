"""A map of many points as inline SVG: groups have their own colours and shapes, and names beside a point of theirs.

Without a script: a group is a link, and a tooltip names it. Thousands of points take tens of kilobytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from v3s.pages.templates import text_as_html

_SIZE, _MARGIN = 600, 14  # of the map, in its own units
_LARGEST = 800  # maximum width of a map, in pixels
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
    "#A08C14", "#7550AA", "#3CA03C", "#C83C50", "#148CA0", "#96643C",
)  # fmt: skip
"""Those of the map of ``v3s serve``, in its order."""
_SHAPES = ("m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "m-4-4h8v8h-8z", "m0-5l5 9h-10z", "m0-5l5 5-5 5-5-5z", "m0 5l5-9h-10z")
_CIRCLE = "m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z"
_NO_GROUP = "m-1.5 0h3m-1.5-1.5v3"  # a small cross
_HIGH, _WIDE = 16, 10  # a name's line, and each of its letters
_REACHES = (15, 25, 37, 51, 67)  # of a name from its point
_DIRECTIONS = ((0, -1), (1, 0), (0, 1), (-1, 0), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8))
_Box = tuple[float, float, float, float]  # its middle (x, y), and how far it goes across and down from there


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Points of one look.

    Attributes:
        name: shown beside a point in their middle, and in the tooltip.
        description: the tooltip.
        points: x and y in [0, 1], shape (n, 2); y grows upwards.
        link: where a click leads to, such as ``#anchor``; empty for nowhere.
        is_rest: in no group: small grey crosses without a name.
    """

    name: str
    description: str
    points: NDArray[np.float32]
    link: str = ""
    is_rest: bool = False


def scatter(groups: Sequence[Group], *, title: str, marks: Sequence[Group] = ()) -> Markup:
    """Draw groups of points.

    Args:
        groups: the groups; the first 12 differ in colour, from the 13th on also in shape. 12 colours and 5 shapes
            make 60 looks.
        title: for screen readers.
        marks: points to circle; the names are not shown.

    Returns:
        An ``<svg>`` element, nearly as wide as the page.
    """
    frame = f'<rect x="0.5" y="0.5" width="{_SIZE - 1}" height="{_SIZE - 1}" fill="none" stroke="currentColor" '
    parts = [frame + 'stroke-opacity="0.3"/>']
    parts += [_points(group, number) for number, group in enumerate(groups)]
    parts += map(_circles, marks)
    parts += _names([group for group in groups if len(group.points) and not group.is_rest])
    name = text_as_html(title)
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" viewBox="0 0 {_SIZE} {_SIZE}" '
        f'font-family="system-ui, sans-serif" font-size="15" font-weight="700" '
        f'style="display:block;width:100%;max-width:{_LARGEST}px;height:auto"><title>{name}</title>{"".join(parts)}</svg>'
    )


def _points(group: Group, number: int) -> str:
    if group.is_rest:
        shape, look = _NO_GROUP, 'fill="none" stroke="currentColor" stroke-opacity="0.45"'
    else:
        colour, shape = COLOURS[number % len(COLOURS)], _SHAPES[number // len(COLOURS) % len(_SHAPES)]
        look = f'fill="{colour}" fill-opacity="0.75"'
    path = "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in _place(group.points).tolist())
    drawn = f'<path d="{path}" {look}><title>{text_as_html(group.description)}</title></path>'
    return _linked(drawn, group.link)


def _circles(group: Group) -> str:
    path = "".join(f"M{x:.1f} {y:.1f}{_CIRCLE}" for x, y in _place(group.points).tolist())
    look = 'fill="none" stroke="currentColor" stroke-width="1.5" pointer-events="all"'
    return _linked(f'<path d="{path}" {look}><title>{text_as_html(group.description)}</title></path>', group.link)


def _linked(drawn: str, link: str) -> str:
    return f'<a href="{text_as_html(link)}">{drawn}</a>' if link else drawn


def _names(groups: Sequence[Group]) -> list[str]:
    """The name of each group beside the point that is nearest to the median of its points, with an edge around it."""
    marks = [(group.name, *_middle(group)) for group in groups]
    return [
        f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle" fill="currentColor" '
        f'stroke="Canvas" stroke-width="4" stroke-linejoin="round" paint-order="stroke" pointer-events="none">'
        f"{text_as_html(name)}</text>"
        for (name, _, _), (x, y) in zip(marks, places_beside(marks, _SIZE), strict=True)
    ]


def _middle(group: Group) -> tuple[float, float]:
    places = _place(group.points)
    x, y = places[np.square(places - np.median(places, axis=0)).sum(axis=1).argmin()].tolist()
    return x, y


def places_beside(marks: Sequence[tuple[str, float, float]], size: float) -> list[tuple[float, float]]:
    """The middles of names beside their marks, over no mark and no other name while there is room.

    Args:
        marks: name, x and y of each; y grows downwards.
        size: of the square that they lie in.
    """
    taken = [(x, y, 5.0, 5.0) for _, x, y in marks]
    for name, x, y in marks:
        across, down = len(name) * _WIDE / 2 + 2, _HIGH / 2
        places = [
            (x + right * (reach + across - down), y + below * reach, across, down)
            for reach in _REACHES
            for right, below in _DIRECTIONS
        ]
        taken.append(next((place for place in places if _is_free(place, taken, size)), places[0]))
    return [(x, y) for x, y, _, _ in taken[len(marks) :]]


def _is_free(place: _Box, taken: Sequence[_Box], size: float) -> bool:
    x, y, across, down = place
    return (
        across <= x <= size - across
        and down <= y <= size - down
        and not any(abs(x - x2) < across + across2 and abs(y - y2) < down + down2 for x2, y2, across2, down2 in taken)
    )


def _place(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Points of the unit square on the drawing."""
    scaled = points.astype(np.float64) * (1, -1) + (0, 1)
    return scaled * (_SIZE - 2 * _MARGIN) + _MARGIN
