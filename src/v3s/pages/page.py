"""One self-contained HTML page: sections, figures, videos, tables.

All text arguments are escaped here. Blocks and sections are HTML returned by these functions or by ``charts``.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from v3s.files.text import as_text
from v3s.files.writing import write_whole

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #d5d9de; --quiet: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #15181c; --faint: #3a4048; --quiet: #9aa4af; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--faint); padding-top: 1rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure > img, figure > video { max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; }
p { overflow-wrap: anywhere; }
.pair { display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.strip { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.strip figure { margin: 0; }
.strip img, .strip video { width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--faint); text-align: left; }
"""


def text_as_html(text: str) -> str:
    """Plain text as HTML; a page and its charts show all text so."""
    return escape(as_text(text))


def page(title: str, sections: Sequence[str], *, lead: str = "") -> str:
    """Build an HTML document without external links from a title, an optional lead paragraph and sections."""
    opening = f"<h1>{text_as_html(title)}</h1>{paragraph(lead) if lead else ''}"
    body = "\n".join([opening, *sections])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text_as_html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def section(heading: str, *blocks: str, anchor: str = "") -> str:
    """Build a section from a heading and blocks; links of the page lead to its anchor, as ``#anchor``."""
    opening = f'<section id="{escape(anchor)}">' if anchor else "<section>"
    return "\n".join([opening, f"<h2>{text_as_html(heading)}</h2>", *blocks, "</section>"])


def paragraph(text: str) -> str:
    """Build a paragraph of plain text."""
    return f"<p>{text_as_html(text)}</p>"


def figure(image: str, caption: str, alt: str = "") -> str:
    """Show an image or a chart with a caption.

    Args:
        image: An ``<svg>`` element from ``charts``, a data URI, or a path relative to the page.
        caption: Text below the image.
        alt: Alternative text for screen readers; the caption by default. A chart has its own.
    """
    return _captioned(image if image.startswith("<svg") else _media(image, alt or caption), caption)


def side_by_side(*figures: str) -> str:
    """Show figures two in a row, or below each other on a narrow screen."""
    return '<div class="pair">\n' + "\n".join(figures) + "\n</div>"


def video(uri: str, caption: str) -> str:
    """Show a looping, muted video; ``uri`` is a data URI or a path relative to the page."""
    return _captioned(_player(uri, caption), caption)


def strip(columns: Sequence[tuple[str, str] | tuple[str, str, str]]) -> str:
    """Show images or videos side by side, from (caption, uri) pairs; they wrap on a narrow screen.

    A third value, if it is not empty, is a path relative to the page, of a clip that image and caption then link to.
    """
    shown = "\n".join(
        _captioned(_media(uri, caption), caption, link[0] if link else "") for caption, uri, *link in columns
    )
    return f'<div class="strip">\n{shown}\n</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Show rows of plain values below a header.

    Raises:
        ValueError: A row and the header differ in the number of cells.
    """
    lines = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"the table has {len(header)} columns {list(header)}, but a row has {len(row)}: {list(row)}"
            )
        lines.append("<tr>" + "".join(f"<td>{text_as_html(str(cell))}</td>" for cell in row) + "</tr>")
    head = "".join(f'<th scope="col">{text_as_html(name)}</th>' for name in header)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(lines)}</tbody></table></div>'
    )


def write_page(path: str | Path, html: str) -> None:
    """Write a page atomically; creates the folder if necessary.

    Raises:
        SaveError: the file cannot be written; an existing page is unchanged.
    """
    write_whole(Path(path), html.encode())


def _captioned(shown: str, caption: str, link: str = "") -> str:
    text = text_as_html(caption)
    if link:
        shown, text = f'<a href="{_src(link)}">{shown}</a>', f'{text} <a href="{_src(link)}">clip</a>'
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"


def _media(uri: str, alt: str) -> str:
    """Show an image, or a player if the URI is a video."""
    if uri.startswith("data:video/") or uri.endswith((".mp4", ".webm")):
        return _player(uri, alt)
    return f'<img src="{_src(uri)}" alt="{text_as_html(alt)}">'


def _player(uri: str, label: str) -> str:
    return (
        f'<video src="{_src(uri)}" aria-label="{text_as_html(label)}" controls autoplay loop muted playsinline></video>'
    )


def _src(uri: str) -> str:
    """Escape a URI for an attribute; refuse external and absolute ones."""
    if not uri.startswith("data:") and (":" in uri or uri.startswith(("/", "\\"))):
        raise ValueError(f"pages cannot use external media: expected a data URI or a relative path, got {uri[:80]!r}")
    return escape(uri)
