"""Pages from jinja2 templates: all values are escaped, and all text is shown as `v3s.files.text.as_text` does."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from v3s.files.text import as_sentence, as_text, counted, verb
from v3s.files.writing import write_whole

_ROOMS = Path(__file__).parents[1]


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: name of a file in a folder ``templates`` of a room. It extends ``base.html`` of this one, or, as a
            document that needs no other file, ``document.html``, whose sections are collected as they are written.
        values: what the template shows: text, and charts.
    """
    return _environment().get_template(template).render(values, sections=[])


def write_page(path: str | Path, html: str) -> None:
    """Write a page atomically; creates the folder if necessary.

    Raises:
        SaveError: the file cannot be written; an existing page is unchanged.
    """
    write_whole(Path(path), html.encode())


def text_as_html(text: str) -> Markup:
    """Plain text as HTML; a page and its charts show all text so."""
    return escape(as_text(text))


@cache
def _environment() -> Environment:
    folders = [*sorted(_ROOMS.glob("*/templates")), Path(__file__).parent / "static"]
    found = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"counted": counted, "verb": verb, "percent": _percent, "sentence": as_sentence, "sha256": _sha256}
    found.globals["zip"] = zip
    return found


def _shown(value: Any) -> Any:
    return as_text(value) if type(value) is str else value


def _percent(share: float, digits: int = 1) -> str:
    return f"{share:.{digits}%}"


def _sha256(script: str) -> str:
    """The hash by which a policy knows a script."""
    return b64encode(sha256(script.encode()).digest()).decode()
