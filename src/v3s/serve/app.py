"""The addresses of the server: the page, its pictures and clips, and what it asks for as JSON."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import fields
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from v3s.files.text import as_text
from v3s.pages.templates import render
from v3s.serve.desk import Desk
from v3s.serve.filters import Filters, number_in, whole_in
from v3s.serve.parts import in_parts
from v3s.video.index import VideoError

_MAX_BODY, _MAX_ROWS, _MAX_PAGE = 1 << 16, 500, 240
_MAX_CORNERS, _FARTHEST_CORNER = 300, 10.0  # the map is from 0 to 1
_PICTURE_WIDTH, _CLIP_WIDTH, _WINDOW_WIDTH = 320, 320, 640
_CLIP_SECONDS, _WINDOW_SECONDS = 10.0, 40.0
_NUM_PAIRS = 30
_LISTED = 1000  # folders, and labels, that can be chosen from
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(desk: Desk) -> Starlette:
    """Build the application of one collection."""
    views = _Views(desk)
    stamp = views.stamp
    routes = [
        Route("/", views.index),
        Route("/api/collection", views.collection),
        Route("/api/spans", views.spans),
        Route("/api/spans/{row:int}", views.span),
        Route("/api/map", views.map),
        Route("/api/colours", views.colours),
        Route("/api/clusters", views.clusters),
        Route("/api/duplicates", views.duplicates),
        Route("/api/labels", views.labels),
        Route("/api/labels", views.give_label, methods=["POST"]),
        Route("/api/classes", views.add_class, methods=["POST"]),
        Route("/api/probe", views.train, methods=["POST"]),
        Route(f"/media/{stamp}/{{row:int}}/picture.jpg", views.picture),
        Route(f"/media/{stamp}/{{row:int}}/clip.mp4", views.clip),
        Route(f"/media/{stamp}/{{row:int}}/window.mp4", views.window),
        Route("/labels.csv", views.label_list),
        Mount("/static", StaticFiles(packages=[("v3s.serve", "static"), ("v3s.pages", "static")])),
    ]
    handlers = {ValueError: _refused, OSError: _refused, ClientDisconnect: _refused}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_SameVectors, stamp=stamp)])


class _SameVectors:
    """Refuses a window of an earlier server, whose vectors were others: its numbers of spans mean others here."""

    def __init__(self, app: ASGIApp, stamp: str) -> None:
        self.app, self.stamp = app, stamp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self.app
        if scope["type"] == "http" and Headers(scope=scope).get("v3s-vectors", self.stamp) != self.stamp:
            answer = JSONResponse({"error": "the server has other vectors than this window; reload the page"}, 409)
        await answer(scope, receive, send)


async def _refused(request: Request, error: Exception) -> Response:
    """An error as one line."""
    return JSONResponse({"error": as_text(str(error))}, 404 if isinstance(error, VideoError) else 400)


class _Views:
    """The answers."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.stamp = desk.vectors.description.stamp[:12]

    async def index(self, request: Request) -> Response:
        description = self.desk.vectors.description
        html = render(
            "serve.html",
            title=as_text(self.desk.vectors.folder.resolve().name),
            source=description.source,
            network=description.network,
            stamp=self.stamp,
        )
        return Response(html, media_type="text/html")

    async def collection(self, request: Request) -> Response:
        catalogue = self.desk.catalogue
        folders = np.bincount(catalogue.folder_of, minlength=len(catalogue.folders)).tolist()
        labels = np.bincount(catalogue.label_of + 1, minlength=len(catalogue.labels) + 1).tolist()[1:]
        return JSONResponse(
            {
                "whole_files": catalogue.has_whole_files,
                "num_files": len(catalogue.paths),
                "folders": _numbered(catalogue.folders, folders),
                "labels": _numbered(catalogue.labels, labels),
                **self._labels(),
            }
        )

    async def spans(self, request: Request) -> Response:
        values = request.query_params
        offset, limit = _offset(values), whole_in(values.get("limit", "60"), "limit")
        if not 1 <= limit <= _MAX_PAGE:
            raise ValueError(f"limit is {limit}; it must be 1 to {_MAX_PAGE}")
        order, filters = values.get("order", "listed"), read_filters(values)
        return JSONResponse(await run_in_threadpool(self.desk.page, order, filters, offset, limit))

    async def span(self, request: Request) -> Response:
        row = request.path_params["row"]
        described = self.desk.describe(row)
        facts = await self._made(self.desk.preview(row, "facts"))
        return JSONResponse({**described, "file_seconds": float(facts)})

    async def map(self, request: Request) -> Response:
        """The points of the map in 65,536 steps: uint16 (N, 2), x before y."""
        points = await run_in_threadpool(self.desk.survey.points, request.query_params.get("method", "pca"))
        return Response((points * 65535).round().astype("<u2").tobytes(), media_type="application/octet-stream")

    async def colours(self, request: Request) -> Response:
        """The number of each span's label, class or cluster: int16 (N,), -1 for none."""
        by = request.query_params.get("by", "")
        if by == "cluster":
            numbers = await run_in_threadpool(self.desk.survey.clusters)
        elif by in ("label", "mark"):
            numbers = self.desk.catalogue.label_of if by == "label" else self.desk.marks.class_of
        else:
            raise ValueError(f"colours are by {by[:20]!r}; they must be by label, mark or cluster")
        return Response(numbers.astype("<i2").tobytes(), media_type="application/octet-stream")

    async def clusters(self, request: Request) -> Response:
        found = await run_in_threadpool(self.desk.survey.typical)
        return JSONResponse([{**each, "spans": list(map(self.desk.describe, each["rows"]))} for each in found])

    async def duplicates(self, request: Request) -> Response:
        found = await run_in_threadpool(self.desk.survey.duplicates)
        offset = _offset(request.query_params)
        shown = [
            {
                "similarity": pair.similarity_text,
                "num_pairs": pair.num_pairs,
                "sides": [
                    {**self.desk.describe(side.rows[0]), "start": side.start_seconds, "end": side.end_seconds}
                    for side in (pair.first, pair.second)
                ],
            }
            for pair in found[offset : offset + _NUM_PAIRS]
        ]
        return JSONResponse({"num_duplicates": len(found), "pairs": shown})

    async def labels(self, request: Request) -> Response:
        rows = [whole_in(word, "a row") for word in request.query_params.get("rows", "").split(",") if word]
        if len(rows) > _MAX_ROWS:
            raise ValueError(f"{len(rows)} rows were asked for; ask for at most {_MAX_ROWS}")
        await run_in_threadpool(self.desk.marks.refresh)
        return JSONResponse({**self._labels(), "marks": self._marks_of(rows)})

    async def give_label(self, request: Request) -> Response:
        body = await _body(request)
        rows, label = body.get("rows"), body.get("label", False)
        if not (isinstance(rows, list) and rows and all(type(row) is int for row in rows) and len(rows) <= _MAX_ROWS):
            raise ValueError(f"rows must be 1 to {_MAX_ROWS} numbers of spans")
        if not isinstance(label, str | None):
            raise ValueError("label must be the name of a class, or null")
        before = await run_in_threadpool(self.desk.marks.give, rows, label)
        return JSONResponse({**self._labels(), "marks": self._marks_of(rows), "before": before})

    async def add_class(self, request: Request) -> Response:
        name = (await _body(request)).get("name")
        if not isinstance(name, str):
            raise ValueError("name must be the name of a class")
        if not await run_in_threadpool(self.desk.marks.add, name):
            raise ValueError(f"the class {name!r} is there already; choose it to label a span")
        return JSONResponse(self._labels())

    async def train(self, request: Request) -> Response:
        await _body(request)
        answers = await run_in_threadpool(self.desk.train)
        said = ("classes", "num_labels", "num_held_out", "num_right", "majority", "num_majority")
        return JSONResponse({name: getattr(answers, name) for name in said})

    async def picture(self, request: Request) -> Response:
        asked = self.desk.preview(request.path_params["row"], "picture", width=_PICTURE_WIDTH)
        return Response(await self._made(asked), media_type="image/jpeg")

    async def clip(self, request: Request) -> Response:
        """A span, of a long one the part around its middle."""
        row = request.path_params["row"]
        self.desk.catalogue.check_row(row)
        start, end = (float(column[row]) for column in (self.desk.catalogue.starts, self.desk.catalogue.ends))
        if end - start > _CLIP_SECONDS:
            middle = (start + end) / 2
            start, end = middle - _CLIP_SECONDS / 2, middle + _CLIP_SECONDS / 2
        asked = self.desk.preview(row, "clip", width=_CLIP_WIDTH, start=start, end=end)
        return in_parts(await self._made(asked), "video/mp4", request.headers)

    async def window(self, request: Request) -> Response:
        """A stretch of a span's file."""
        values = request.query_params
        start, end = (number_in(values.get(name, ""), name) for name in ("start", "end"))
        if not 0 <= start < end <= start + _WINDOW_SECONDS + 1e-6:
            raise ValueError(f"a window begins at 0 or later and has at most {_WINDOW_SECONDS:g} s")
        asked = self.desk.preview(request.path_params["row"], "window", width=_WINDOW_WIDTH, start=start, end=end)
        return in_parts(await self._made(asked), "video/mp4", request.headers)

    async def label_list(self, request: Request) -> Response:
        file = self.desk.marks.list_file
        if not file.exists():
            return Response("no span has a label yet", 404, media_type="text/plain")
        return FileResponse(file, media_type="text/csv", filename=file.name)

    async def _made(self, asked: Any) -> bytes:
        return await asyncio.wrap_future(self.desk.previews.get(asked))

    def _labels(self) -> dict[str, Any]:
        marks = self.desk.marks
        names = list(marks.classes)  # of now: another thread may add some meanwhile
        counts = np.bincount(marks.class_of + 1, minlength=len(names) + 1).tolist()[1 : len(names) + 1]
        classes = [{"name": name, "count": count} for name, count in zip(names, counts, strict=True)]
        file, notice = as_text(str(marks.list_file.resolve())), as_text(self.desk.notice)
        return {
            "version": marks.version,
            "classes": classes,
            "others": marks.num_others,
            "list": file,
            "notice": notice,
        }

    def _marks_of(self, rows: Iterable[int]) -> dict[str, str | None]:
        return {str(row): self.desk.marks.label_of(row) for row in rows}


def _offset(values: Any) -> int:
    """How many come before what is asked for.

    Raises:
        ValueError: it is not a whole number, or below 0.
    """
    offset = whole_in(values.get("offset", "0"), "offset")
    if offset < 0:
        raise ValueError(f"offset is {offset}; it must be 0 or more")
    return offset


def read_filters(values: Any) -> Filters:
    """Filters from the values of an address.

    Raises:
        ValueError: a value is not a number, or the lasso has too many corners.
    """
    found: dict[str, Any] = {}
    for field in fields(Filters):
        text = values.get(field.name)
        if text is None:
            continue
        if field.name in ("mark", "map"):
            found[field.name] = text
        elif field.name == "other_files":
            found["other_files"] = text == "1"
        elif field.name == "lasso":
            numbers = [number_in(word, "lasso") for word in text.split(",")]
            num_corners = len(numbers) / 2
            if num_corners not in range(3, _MAX_CORNERS + 1) or max(map(abs, numbers)) > _FARTHEST_CORNER:
                raise ValueError(
                    f"a lasso has 3 to {_MAX_CORNERS} corners on the map; got {num_corners:g}: {text[:60]}"
                )
            found["lasso"] = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        elif field.name in ("folder", "label", "cluster"):
            found[field.name] = whole_in(text, field.name)
        else:
            found[field.name] = number_in(text, field.name)
    return Filters(**found)


def _numbered(names: tuple[str, ...], counts: list[int]) -> list[dict[str, Any]]:
    """Names that can be chosen from, the most frequent ones if there are too many, in alphabetical order."""
    most = sorted(sorted(range(len(names)), key=lambda number: -counts[number])[:_LISTED])
    return [{"number": number, "name": as_text(names[number]), "count": counts[number]} for number in most]


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent.

    Raises:
        ValueError: it is too long, or not a JSON object.
    """
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > _MAX_BODY:
            raise ValueError(f"more than {_MAX_BODY:,} bytes were sent")
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("send a JSON object")
    return value
