"""The page of a search: the query and its hits, each a film of its middle that leads to the file, or to its clip."""

import os
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from urllib.parse import quote

from v3s.files.times import time_text
from v3s.pages.images import data_uri, jpeg_uri, mp4, small_frames
from v3s.pages.templates import render
from v3s.vectors.hits import Hit
from v3s.vectors.query import Query
from v3s.video.decode import Video
from v3s.video.index import VideoError

MOST_HITS = 100  # on the page
_WIDTH = 240  # of a film, in pixels
_SECONDS, _MOST_FRAMES = 3, 32  # of a film: a part around the middle, at the original speed
_GREY = data_uri(
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 9"><rect width="16" height="9" fill="#888"/></svg>',
    "image/svg+xml",
)

_Figure = tuple[str, str]  # a picture as a data URI, and its caption


def search_page(
    name: str, query: Query, hits: Sequence[Hit], videos: Sequence[Callable[[], Video]], *, lead: str, folder: Path
) -> str:
    """Build the page of a search.

    Args:
        name: the query's file.
        query: what was searched with.
        hits: what was found, best first; the first `MOST_HITS` are shown, and how many there are.
        videos: open each hit as a video.
        lead: what was searched, and how.
        folder: where the page will lie; links are relative to it.
    """
    caption = "{}, {} to {}".format(name, *map(time_text, query.times))
    found = []
    for hit, open_video in zip(hits[:MOST_HITS], videos[:MOST_HITS], strict=True):
        text = f"{hit.rank}. {hit.path}, {hit.start} to {hit.end}: {hit.score:.4f}, z {hit.z:+.2f}"
        times = (hit.start_seconds, hit.end_seconds)
        link = _link(hit.file, folder, times) if hit.clip is None else _link(hit.clip, folder)
        found.append((*_film(text, hit.file, open_video), link))
    asked = (*_film(caption, name, lambda: query.video), _link(name, folder, query.times))
    title = f"Similar to {Path(name).name}"
    return render("search.html", title=title, lead=lead, query=asked, hits=found, num_hits=len(hits))


def _link(file: str, folder: Path, times: tuple[float, float] | None = None) -> str:
    """The address of a file, or of a part of it, on a page in a folder; empty if there is no such file."""
    if not Path(file).is_file():
        return ""
    part = "#t={:.2f},{:.2f}".format(*times) if times else ""
    return quote(os.fsencode(os.path.relpath(file, folder))) + part


def thumbnail(caption: str, file: str, open_video: Callable[[], Video], width: int) -> _Figure:
    """Return the middle frame of a video and a caption; grey and with the reason if it cannot be read."""

    def draw(video: Video) -> str:
        (picture,) = small_frames(video, [(video.num_frames - 1) // 2], width)
        return jpeg_uri(picture)

    return _drawn(caption, file, open_video, draw)


def _film(caption: str, file: str, open_video: Callable[[], Video]) -> _Figure:
    """The same with a few seconds of it."""

    def draw(video: Video) -> str:
        length = min(video.num_frames, ceil(_SECONDS * video.fps))
        first, every = (video.num_frames - length) // 2, ceil(length / _MOST_FRAMES)
        frames = small_frames(video, range(first, first + length, every), _WIDTH)
        return data_uri(mp4(frames, video.fps / every), "video/mp4")

    return _drawn(caption, file, open_video, draw)


def _drawn(caption: str, file: str, open_video: Callable[[], Video], draw: Callable[[Video], str]) -> _Figure:
    try:
        return draw(open_video()), caption
    except VideoError as error:
        return _GREY, f"{caption} (no image: {str(error).removeprefix(f'{file}: ')})"
