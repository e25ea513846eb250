"""A map of many points as inline SVG: each group has its own colour and shape, and its name in its middle.

Without a script: a group is a link, and a tooltip names it. Thousands of points take tens of kilobytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from v3s.pages.charts import PALETTE
from v3s.pages.templates import text_as_html

_SIZE, _MARGIN = 600, 14  # of the map, in its own units
_SHAPES = ("m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z", "m-3-3h6v6h-6z", "m0-4l4 7h-8z", "m0-4l4 4-4 4-4-4z", "m0 4l4-7h-8z")
_CIRCLE = "m-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0z"
_NO_GROUP = "m-1.5 0h3m-1.5-1.5v3"  # a small cross


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Points of one look.

    Attributes:
        name: shown in the middle of the points, and in the tooltip.
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
        groups: the groups; the first ones get the most different looks. 6 colours and 5 shapes make 30 looks.
        title: for screen readers.
        marks: points to circle; the names are not shown.

    Returns:
        An ``<svg>`` element, as wide as the page.
    """
    parts = [_points(group, number) for number, group in enumerate(groups)]
    parts += map(_circles, marks)
    parts += [_name(group) for group in groups if len(group.points) and not group.is_rest]
    name = text_as_html(title)
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" viewBox="0 0 {_SIZE} {_SIZE}" '
        f'font-family="system-ui, sans-serif" font-size="15" font-weight="700" width="{_SIZE}" '
        f'style="display:block;max-width:100%;height:auto"><title>{name}</title>{"".join(parts)}</svg>'
    )


def _points(group: Group, number: int) -> str:
    if group.is_rest:
        shape, look = _NO_GROUP, 'fill="none" stroke="currentColor" stroke-opacity="0.45"'
    else:
        colour, shape = PALETTE[number % len(PALETTE)], _SHAPES[number // len(PALETTE) % len(_SHAPES)]
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


def _name(group: Group) -> str:
    """The name of a group at the point that is nearest to the median of its points, with an edge around the letters."""
    places = _place(group.points)
    middle = places[np.square(places - np.median(places, axis=0)).sum(axis=1).argmin()]
    return (
        f'<text x="{middle[0]:.1f}" y="{middle[1] + 5:.1f}" text-anchor="middle" fill="currentColor" '
        f'stroke="Canvas" stroke-width="4" stroke-linejoin="round" paint-order="stroke" pointer-events="none">'
        f"{text_as_html(group.name)}</text>"
    )


def _place(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Points of the unit square on the drawing."""
    scaled = points.astype(np.float64) * (1, -1) + (0, 1)
    return scaled * (_SIZE - 2 * _MARGIN) + _MARGIN
