"""Pages from jinja2 templates: all values are escaped, and all text is shown as `v3s.files.text.as_text` does."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from v3s.files.text import as_text

_ROOMS = Path(__file__).parents[1]


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: name of a file in a folder ``templates`` of a room; it may extend ``base.html`` of this one.
        values: what the template shows.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    folders = sorted(_ROOMS.glob("*/templates"))
    return Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, finalize=_shown)


def _shown(value: Any) -> Any:
    return as_text(value) if type(value) is str else value
