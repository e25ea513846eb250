"""A page that has everything that pages are made of."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from markupsafe import Markup

from v3s.pages.templates import render


def sample_page(
    name: str, *, charts: Sequence[tuple[Markup, str]] = (), films: Sequence[tuple[str, ...]] = (), **more: Any
) -> str:
    """The page of an audit with a text everywhere, charts and films with their captions."""
    result = SimpleNamespace(title=name, conclusions=[name], masked=None)
    values = {"result": result, "scores": ([name, "b"], [["a", name]])}
    return render("audit.html", charts=charts, films=films, **{**values, **more})
