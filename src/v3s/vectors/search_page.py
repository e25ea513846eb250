"""The page of a search: the query and its hits, each with its middle frame, its time and a link to its clip."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from v3s.files.times import time_text
from v3s.pages.images import data_uri, jpeg_uri, small_frames
from v3s.pages.page import figure, page, paragraph, section, strip
from v3s.vectors.hits import Hit
from v3s.vectors.query import Query
from v3s.video.decode import Video
from v3s.video.index import VideoError

_PICTURE_WIDTH = 320  # in pixels
_GREY = data_uri(
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 9"><rect width="16" height="9" fill="#888"/></svg>',
    "image/svg+xml",
)


def search_page(
    name: str, query: Query, hits: Sequence[Hit], videos: Sequence[Callable[[], Video]], *, lead: str, folder: Path
) -> str:
    """Build the page of a search.

    Args:
        name: the query's file, for captions.
        query: what was searched with.
        hits: what was found, best first.
        videos: open each hit as a video.
        lead: what was searched, and how.
        folder: where the page will lie; links to clips are relative to it.
    """
    times = "{} to {}".format(*map(time_text, query.times))
    caption, picture = thumbnail(f"{name}, {times}", name, lambda: query.video)
    columns = []
    for hit, open_video in zip(hits, videos, strict=True):
        text = f"{hit.rank}. {hit.path}, {hit.start} to {hit.end}: {hit.score:.4f}, z {hit.z:+.2f}"
        shown = thumbnail(text, hit.file, open_video)
        columns.append((*shown, "" if hit.clip is None else _link(Path(hit.clip), folder)))
    numbers = (
        "Numbers are cosine similarities, and z how many standard deviations they lie above the collection's mean."
    )
    found = section("The most similar", paragraph(numbers), strip(columns))
    blocks = [section("Query", figure(picture, caption)), found]
    return page(f"Similar to {Path(name).name}", blocks, lead=lead)


def _link(file: Path, folder: Path) -> str:
    """The address of a file on a page in a folder."""
    return quote(os.fsencode(os.path.relpath(file, folder)))


def thumbnail(caption: str, file: str, open_video: Callable[[], Video], width: int = _PICTURE_WIDTH) -> tuple[str, str]:
    """Return a caption and the middle frame of a video; grey and with the reason if it cannot be read."""
    try:
        video = open_video()
        (picture,) = small_frames(video, [(video.num_frames - 1) // 2], width)
        return caption, jpeg_uri(picture)
    except VideoError as error:
        return f"{caption} (no image: {str(error).removeprefix(f'{file}: ')})", _GREY
