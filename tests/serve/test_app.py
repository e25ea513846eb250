"""What the server answers: pages of spans in an order, filters, previews, and one line for what is wrong."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from rich.console import Console
from starlette.testclient import TestClient

from tests.serve.conftest import NAMES, Open, write_avi
from v3s.backbones.device import choose_compute
from v3s.features.encoder import Encoder
from v3s.serve.catalogue import read_catalogue
from v3s.vectors.collection import open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.query import open_query_encoder
from v3s.vectors.search import SearchConfig, search


def spans_of(client: TestClient, **values: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/spans", params=values)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["spans"]
    return found


def refused(client: TestClient, path: str, status: int = 400, **values: Any) -> str:
    answer = client.get(path, params=values)
    assert answer.status_code == status
    message: str = answer.json()["error"]
    assert "\n" not in message
    return message


def media(client: TestClient, row: int, name: str) -> str:
    html = client.get("/").text
    stamp = html.partition('data-stamp="')[2].partition('"')[0]
    return f"/media/{stamp}/{row}/{name}"


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names(client: Open, files: Path) -> None:
    hostile = files.with_name("<script>alert(1)</script>".replace("/", ":"))
    shutil.move(files, hostile)
    answer = client(hostile).get("/")
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "style=" not in answer.text


def test_static_files_are_in_the_package(client: Open, files: Path) -> None:
    served = client(files)
    for name in (
        "base.css",
        "serve.css",
        "main.js",
        "grid.js",
        "player.js",
        "labels.js",
        "map.js",
        "numbers.js",
        "pictures.js",
        "icon.svg",
    ):
        answer = served.get(f"/static/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["Content-Type"].partition(";")[0] in ("text/css", "text/javascript", "image/svg+xml")


def test_spans_come_as_listed_page_by_page(client: Open, spans: Path) -> None:
    served = client(spans)
    catalogue = read_catalogue(open_vectors(spans))
    assert len(catalogue) == 4 * len(NAMES)
    found = spans_of(served, limit=20) + spans_of(served, limit=20, offset=20)
    assert [span["row"] for span in found] == list(range(len(catalogue)))
    assert [span["start"] for span in found] == pytest.approx(catalogue.starts.tolist())
    assert {span["name"] for span in found} >= {"left/a.avi", "right/two\\nlines.avi", "right/not-utf-8-\\xff.avi"}


@pytest.mark.parametrize("row", [0, 5])
def test_similar_spans_are_in_the_order_of_their_cosines(client: Open, files: Path, row: int) -> None:
    vectors = open_vectors(files)
    matrix = vectors.take(torch.arange(len(vectors))).numpy().astype(np.float64)
    cosines = matrix @ matrix[row]
    found = spans_of(client(files), order=f"like:{row}")
    assert found[0]["row"] == row
    assert [span["score"] for span in found] == pytest.approx(sorted(cosines, reverse=True), abs=1e-3)
    assert sorted(span["row"] for span in found) == list(range(len(vectors)))


def test_of_spans_that_overlap_only_the_best_is_shown(client: Open, spans: Path) -> None:
    """Segments do not overlap; a page of them has every one, and pages do not repeat any."""
    served = client(spans)
    first, second = (spans_of(served, order="like:3", limit=10, offset=offset) for offset in (0, 10))
    rows = [span["row"] for span in first + second]
    assert len(set(rows)) == 20
    scores = [span["score"] for span in first + second]
    assert scores == sorted(scores, reverse=True)


def test_other_files_only_leaves_as_many_hits(client: Open, spans: Path) -> None:
    served = client(spans)
    every, others = (spans_of(served, order="like:3", limit=28, other_files=only) for only in (0, 1))
    assert every[0]["row"] == 3
    assert len(every) == len(others) == 28
    assert every[0]["name"] not in {span["name"] for span in others}
    elsewhere = [span["row"] for span in every if span["name"] != every[0]["name"]]
    assert [span["row"] for span in others][: len(elsewhere)] == elsewhere


def test_filters(client: Open, spans: Path) -> None:
    served = client(spans)
    collection = served.get("/api/collection").json()
    assert [(folder["name"], folder["count"]) for folder in collection["folders"]] == [("left", 16), ("right", 16)]
    assert {span["name"].split("/")[0] for span in spans_of(served, folder=1)} == {"right"}
    assert {span["label"] for span in spans_of(served, label=0)} == {"left"}
    assert spans_of(served, shortest=0.6) == []
    assert len(spans_of(served, longest=0.6)) == 32
    late = spans_of(served, after=1, before=1.6)
    assert len(late) == 8
    assert {span["start"] for span in late} == {1.0}
    everything = "-0.1,-0.1,1.1,-0.1,1.1,1.1,-0.1,1.1"
    assert len(spans_of(served, lasso=everything)) == 32
    assert spans_of(served, lasso="2,2,3,2,3,3") == []
    clusters = served.get("/api/clusters").json()
    assert sum(cluster["size"] for cluster in clusters) == 32
    assert len(spans_of(served, cluster=clusters[0]["cluster"])) == clusters[0]["size"]


def test_what_does_not_exist_is_named_with_what_there_is(client: Open, spans: Path) -> None:
    served = client(spans)
    served.post("/api/classes", json={"name": "known"})
    num_clusters = len(served.get("/api/clusters").json())
    messages: dict[tuple[str, Any], str] = {
        ("folder", 77): "folder 77 does not exist; there are 2, from 0 to 1",
        ("folder", -1): "folder -1 does not exist; there are 2, from 0 to 1",
        ("label", 2): "label 2 does not exist; there are 2, from 0 to 1",
        ("cluster", 99): f"cluster 99 does not exist; there are {num_clusters}, from 0 to {num_clusters - 1}",
        ("mark", "other"): "no class is called 'other'; the classes are: known",
        ("order", "stretch:0:a:1"): "the stretch's start is 'a'; it must be a number",
        ("order", "stretch:0:0:inf"): "the stretch's end is 'inf'; it must be a number",
        ("order", "like:1.5"): "the span is '1.5'; it must be a whole number",
        ("folder", 0.5): "folder is '0.5'; it must be a whole number",
        ("cluster", "1e300"): "cluster is '1e300'; it must be a whole number",
        ("limit", 2.5): "limit is '2.5'; it must be a whole number",
        ("offset", -5): "offset is -5; it must be 0 or more",
        ("lasso", "0,0,1,0,1,1,5"): "a lasso has 3 to 300 corners on the map; got 3.5: 0,0,1,0,1,1,5",
        ("order", "foo"): "unknown order 'foo'; the orders are listed, like:SPAN, stretch:SPAN:START:END, "
        "outliers, suggested:NUMBER, answer:CLASS and unsure",
    }
    for (name, value), message in messages.items():
        assert refused(served, "/api/spans", **{name: value}) == message
    assert refused(served, "/api/duplicates", offset=-5) == "offset is -5; it must be 0 or more"
    assert refused(served, "/api/labels", rows="0,1.5") == "a row is '1.5'; it must be a whole number"
    for query in ("label=-1", "mark=", "mark=known"):
        assert served.get(f"/api/spans?{query}").status_code == 200


def test_a_lasso_keeps_the_points_inside_of_it(client: Open, spans: Path) -> None:
    served = client(spans)
    points = np.frombuffer(served.get("/api/map").content, "<u2").reshape(-1, 2) / 65535
    left = {span["row"] for span in spans_of(served, lasso="-1,-1,0.5,-1,0.5,2,-1,2")}
    assert 0 < len(left) < len(points)
    assert left == set(np.flatnonzero(points[:, 0] < 0.5).tolist())
    diamond = {span["row"] for span in spans_of(served, lasso="0.5,0,1,0.5,0.5,1,0,0.5")}
    assert diamond == set(np.flatnonzero(np.abs(points - 0.5).sum(axis=1) < 0.5).tolist())


@pytest.mark.parametrize("by", ["label", "mark", "cluster"])
def test_colours_are_one_number_for_each_point(client: Open, spans: Path, by: str) -> None:
    numbers = np.frombuffer(client(spans).get("/api/colours", params={"by": by}).content, "<i2")
    assert len(numbers) == 32
    assert (numbers == -1).all() == (by == "mark")


def test_a_class_that_is_there_already_is_refused(client: Open, spans: Path) -> None:
    served = client(spans)
    assert served.post("/api/classes", json={"name": "crawl"}).status_code == 200
    answer = served.post("/api/classes", json={"name": "crawl"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "the class 'crawl' is there already; choose it to label a span"
    assert len(served.get("/api/labels").json()["classes"]) == 1


def test_duplicates_are_pairs_of_files(client: Open, avi_videos: Path, spans: Path) -> None:
    found = client(spans).get("/api/duplicates").json()
    for pair in found["pairs"]:
        assert pair["sides"][0]["name"] != pair["sides"][1]["name"]
        assert pair["similarity"].startswith("similarity ")


def test_outliers_and_what_to_label(client: Open, spans: Path) -> None:
    served = client(spans)
    scores = [span["score"] for span in spans_of(served, order="outliers")]
    assert scores == sorted(scores, reverse=True)
    suggested = [span["row"] for span in spans_of(served, order="suggested:0", limit=100)]
    assert len(suggested) == len(set(suggested)) == 32
    served.post("/api/classes", json={"name": "known"})
    served.post("/api/labels", json={"rows": suggested[:3], "label": "known"})
    again = [span["row"] for span in spans_of(served, order="suggested:1", limit=100)]
    assert not set(again) & set(suggested[:3])


def test_a_clip_of_an_avi_is_one_that_browsers_play(client: Open, files: Path) -> None:
    served = client(files)
    answer = served.get(media(served, 2, "clip.mp4"))
    assert answer.status_code == 200
    with av.open(io.BytesIO(answer.content), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert len(list(container.decode(stream))) == 20
    picture = served.get(media(served, 2, "picture.jpg"))
    assert picture.headers["Content-Type"] == "image/jpeg"


def test_a_range_of_a_clip_is_sent_alone(client: Open, files: Path) -> None:
    """Safari plays no clip from a server that answers ranges with the whole body."""
    served = client(files)
    address = media(served, 2, "clip.mp4")
    whole = served.get(address)
    size = len(whole.content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    parts = {
        "bytes=0-1": (0, 2), "bytes=10-": (10, size), "bytes=-7": (size - 7, size), "BYTES=3-3": (3, 4),
        f"bytes=5-{size}": (5, size), f"bytes=-{size + 1}": (0, size), f"bytes={size - 1}-{size - 1}": (size - 1, size),
    }  # fmt: skip
    for text, (start, end) in parts.items():
        answer = served.get(address, headers={"Range": text})
        assert (answer.status_code, answer.content) == (206, whole.content[start:end]), text
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["Content-Type"] == "video/mp4"
    for text in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        answer = served.get(address, headers={"Range": text})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}"), text
    for text in ("bytes=0-1,4-5", "items=0-1", "bytes=5-4", "bytes=-", "bytes=a-b", "bytes=0-" + "9" * 5000, ""):
        answer = served.get(address, headers={"Range": text})
        assert (answer.status_code, answer.content) == (200, whole.content), text
    assert served.get(address, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    window = {"start": 0, "end": 1}
    assert served.get(media(served, 2, "window.mp4"), params=window, headers={"Range": "bytes=0-1"}).status_code == 206


def test_a_window_shows_the_stretch_of_the_file(client: Open, spans: Path) -> None:
    served = client(spans)
    answer = served.get(media(served, 1, "window.mp4"), params={"start": 0.2, "end": 1.2})
    with av.open(io.BytesIO(answer.content), "r") as container:
        assert len(list(container.decode(video=0))) == 10
    assert served.get("/api/spans/1").json()["file_seconds"] == pytest.approx(2, abs=0.11)


def test_a_video_that_was_moved_away_or_replaced_says_so(
    client: Open, avi_videos: Path, files: Path, tmp_path: Path
) -> None:
    served = client(files)
    path, aside = avi_videos / NAMES[0], tmp_path / "aside.avi"
    row = next(span["row"] for span in spans_of(served) if span["name"] == NAMES[0])
    shutil.move(path, aside)
    try:
        assert "is no longer there" in refused(served, media(served, row, "picture.jpg"), 404)
        write_avi(path, 5, seconds=1.0)
        assert "changed since it was embedded" in refused(served, media(served, row, "clip.mp4"), 404)
        path.write_bytes(b"no video")
        assert NAMES[0] in refused(served, media(served, row, "picture.jpg"), 404)
    finally:
        shutil.move(aside, path)
    assert served.get(media(served, row, "picture.jpg")).status_code == 200


def test_a_stretch_finds_what_the_command_search_finds(client: Open, spans: Path) -> None:
    vectors = open_vectors(spans)

    def open_encoder() -> Encoder:
        return open_query_encoder(vectors, None, choose_compute("cpu", "fp32"))

    served = client(spans, open_encoder)
    found = spans_of(served, order="stretch:9:0.6:1.4", limit=6)
    query = vectors.place_of(9).file
    config = SearchConfig(query=query, start="0.6", end="1.4", vectors=str(spans), k=6, device="cpu")
    hits = search(config, console=Console(quiet=True))
    assert [(span["start"], span["score"]) for span in found] == [
        (pytest.approx(hit.start_seconds), pytest.approx(hit.score, abs=1e-3)) for hit in hits
    ]
    assert "outside" in refused(served, "/api/spans", order="stretch:6:50:51")


def test_a_stretch_needs_the_network_of_the_collection(client: Open, spans: Path) -> None:
    vectors = open_vectors(spans)

    def open_other() -> Encoder:
        return open_query_encoder(vectors, "random:r3d@0.25", choose_compute("cpu", "fp32"))

    message = refused(client(spans, open_other), "/api/spans", order="stretch:0:0.5:1.5")
    assert "vectors of another model" in message
    with pytest.raises(VectorsError, match="with --backbone"):
        open_query_encoder(vectors, str(spans), choose_compute("cpu", "fp32"))


def test_a_stretch_cannot_be_compared_with_whole_files(client: Open, files: Path) -> None:
    vectors = open_vectors(files)

    def open_encoder() -> Encoder:
        return open_query_encoder(vectors, None, choose_compute("cpu", "fp32"))

    assert "one vector per video" in refused(client(files, open_encoder), "/api/spans", order="stretch:0:0.5:1.5")


@pytest.mark.parametrize(
    "values",
    [
        {"order": "like:99"}, {"order": "like:-1"}, {"order": "like:1e9"}, {"order": "like"}, {"order": "nonsense:1"},
        {"order": "stretch:1:nan:2"}, {"order": "stretch:1:2:1"}, {"order": "stretch:1:x:2"}, {"order": "answer:0"},
        {"order": "unsure"}, {"limit": 0}, {"limit": 100000}, {"limit": "many"}, {"offset": -1}, {"folder": "left"},
        {"shortest": "inf"}, {"lasso": "1,2,3"}, {"lasso": "a,b,c,d,e,f"}, {"lasso": ",".join(["0.5"] * 2000)},
        {"lasso": "0,0,1,0,1,1", "map": "../../etc"}, {"order": "like:" + "9" * 500}, {"order": "x" * 5000},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(client: Open, spans: Path, values: dict[str, Any]) -> None:
    assert len(refused(client(spans), "/api/spans", **values)) < 250


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/%2e%2e/cli.py", "/static//etc/passwd",
        "/media/x/0/picture.jpg", "/media/..%2f..%2fetc/passwd", "/api/spans/../../etc", "/static/..%5capp.py",
    ],
)  # fmt: skip
def test_no_path_leads_out(client: Open, files: Path, path: str) -> None:
    answer = client(files).get(path)
    assert answer.status_code in (400, 404), answer.text
    assert "import" not in answer.text


def test_no_address_contains_a_path(client: Open, files: Path, avi_videos: Path) -> None:
    served = client(files)
    for span in spans_of(served):
        address = media(served, span["row"], "picture.jpg")
        assert os.fspath(avi_videos) not in address
        assert ".avi" not in address


def test_what_is_sent_is_checked(client: Open, files: Path) -> None:
    served = client(files)
    for body in (
        "{}",
        '{"name": 5}',
        '{"name": ""}',
        '{"name": " a"}',
        '{"name": "a\\nb"}',
        '{"name": "' + "a" * 200 + '"}',
    ):
        assert served.post("/api/classes", content=body).status_code == 400, body
    for body in ("[]", "{", "null", '{"rows": []}', '{"rows": ["0"]}', '{"rows": [true]}', '{"rows": [0], "label": 5}',
                 '{"rows": [0]}',
                 '{"rows": [99], "label": null}', '{"rows": [0], "label": "no such class"}',
                 '{"rows": [-1], "label": null}', "[" * 60000, "x" * 100_000):  # fmt: skip
        answer = served.post("/api/labels", content=body)
        assert answer.status_code == 400, body[:80]
        assert "\n" not in answer.json()["error"]
    assert not (files / "labels" / "marks.jsonl").exists()


def test_a_damaged_list_of_videos_is_named(files: Path) -> None:
    vectors = open_vectors(files)
    for forged in (b'{"path": 5, "label": null, "num_frames": 1, "seconds": 1}', b'{"path": "a"}', b"[]", b"{"):
        object.__setattr__(vectors, "_lines", forged + b"\n")
        with pytest.raises(VectorsError, match=r"videos\.jsonl, line 1: "):
            read_catalogue(vectors)
