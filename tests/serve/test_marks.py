"""Labels that are given in the page: none is lost or made up, whoever writes and whoever is killed."""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.conftest import NAMES, Open
from v3s.data.groups import GroupOptions
from v3s.data.lists.listfile import write_spans
from v3s.data.lists.splits import list_videos
from v3s.files.lock import only_writer
from v3s.files.writing import SaveError, append_line, cut_torn_line
from v3s.serve import marks as marks_module
from v3s.serve.catalogue import read_catalogue
from v3s.serve.learning import train_probe
from v3s.serve.marks import FOLDER, LOG, Marks, check_class
from v3s.vectors.collection import open_vectors
from v3s.vectors.description import VectorsError


def marks_of(folder: Path) -> Marks:
    return Marks(read_catalogue(open_vectors(folder)))


def with_classes(folder: Path, *names: str) -> Marks:
    marks = marks_of(folder)
    for name in names:
        marks.add(name)
    return marks


def given(marks: Marks) -> dict[int, str]:
    return {row: marks.classes[number] for row, number in enumerate(marks.class_of.tolist()) if number >= 0}


def test_labels_are_there_after_a_restart(files: Path) -> None:
    marks = with_classes(files, "walk", "run", 'a "quoted", name')
    marks.give([0, 3], "walk")
    marks.give([1], 'a "quoted", name')
    marks.give([3], "run")
    assert marks.give([0], None) == ["walk"]  # the label before
    assert given(marks) == given(marks_of(files)) == {1: 'a "quoted", name', 3: "run"}
    assert marks.classes == ["walk", "run", 'a "quoted", name']
    lines = (files / FOLDER / LOG).read_text().splitlines()
    assert len(lines) == marks.version == 8


def test_the_list_is_read_by_the_commands_that_train(files: Path, spans: Path, avi_videos: Path) -> None:
    """Whatever the names contain: quotes, line breaks, bytes that are not UTF-8."""
    marks = with_classes(files, "class 0", "class 1")
    for row in range(len(NAMES)):
        marks.give([row], f"class {row % 2}")
    listed = list_videos(marks.list_file)
    assert sorted(listed.paths) == sorted(str(avi_videos / name) for name in NAMES)
    assert set(listed.labels) == {"class 0", "class 1"}
    assert listed.bounds == ()
    marks = with_classes(spans, "5")
    marks.give([5], "5")
    listed = list_videos(avi_videos, splits=marks.list_file)
    place = marks.catalogue.vectors.place_of(5)
    assert (listed.paths, listed.labels) == ((str(avi_videos / place.entry.path),), ("5",))
    assert listed.bounds[0] == pytest.approx((place.start_seconds, place.end_seconds))


def test_two_servers_see_each_other(files: Path) -> None:
    one, other = marks_of(files), marks_of(files)
    one.add("a")
    one.give([0], "a")
    other.add("b")
    assert not other.add("a")
    other.give([1], "b")
    one.refresh()
    assert given(one) == given(other) == {0: "a", 1: "b"}
    assert one.classes == other.classes == ["a", "b"]


def test_labels_of_many_threads_and_servers_are_all_kept(spans: Path) -> None:
    several = [with_classes(spans, *(f"c{number}" for number in range(5))) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda marks=marks, row=row: marks.give([row], f"c{row % 5}"))
        for row in range(24)
        for marks in [several[row % 3]]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given(marks_of(spans)) == {row: f"c{row % 5}" for row in range(24)}


def label_for_ever(folder: Path, told: Path) -> None:
    """Label spans, and write down each label that was promised."""
    marks = with_classes(folder, *(f"class {number}" for number in range(7)))
    for number in range(100_000):
        marks.give([number % 32], f"class {number % 7}")
        append_line(told, str(number))


def test_kill_9_loses_no_label_that_was_promised(spans: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    process = multiprocessing.get_context("fork").Process(target=label_for_ever, args=(spans, told))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (told.exists() and told.read_text().count("\n") >= 20):
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    promised = [int(line) for line in told.read_text().splitlines() if line]
    marks = marks_of(spans)
    assert len(promised) >= 20
    num_given = marks.version - 7
    assert num_given in (len(promised), len(promised) + 1)
    latest = {number % 32: f"class {number % 7}" for number in range(num_given)}
    assert given(marks) == latest


@pytest.mark.parametrize("torn", [b'{"path": "left/a.avi", "sta', b"{", "ä".encode()[:1], b"x" * 200_000])
def test_a_last_line_that_is_half_written_is_dropped_with_a_word(files: Path, torn: bytes) -> None:
    with_classes(files, "a", "b").give([0], "a")
    log = files / FOLDER / LOG
    whole = log.read_bytes()
    log.write_bytes(whole + torn)
    marks = marks_of(files)
    assert "half written" in marks.notice
    assert given(marks) == {0: "a"}
    assert log.read_bytes() == whole
    log.write_bytes(whole + torn)
    marks.give([1], "b")
    assert given(marks_of(files)) == {0: "a", 1: "b"}


def test_a_list_with_labels_of_others_is_kept(files: Path) -> None:
    """A person wrote it, or the log is gone: its labels are nowhere else."""
    with_classes(files, "walk").give([0], "walk")
    folder = files / FOLDER
    assert marks_of(files).notice == ""
    assert [path.name for path in folder.glob("*.csv")] == ["labels.csv"]
    listed = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(listed + "mine.avi,0,,run\n")
    assert marks_of(
        files
    ).notice == f"{folder / 'labels.csv'} had labels that {LOG} does not have; that list is now " + str(
        folder / "labels-1.csv"
    )
    assert (folder / "labels-1.csv").read_text() == listed + "mine.avi,0,,run\n"
    assert (folder / "labels.csv").read_text() == listed
    (folder / LOG).unlink()
    assert "labels-2.csv" in marks_of(files).notice
    assert (folder / "labels-2.csv").read_text() == listed


def test_a_list_that_is_kept_is_named_where_no_other_can_be_written(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_classes(files, "walk").give([0], "walk")
    with (files / FOLDER / "labels.csv").open("a") as listed:
        listed.write("mine.avi,0,,run\n")

    def fail(*_: object) -> None:
        raise SaveError("no space")

    monkeypatch.setattr(sys.modules[Marks.__module__], "write_spans", fail)
    assert re.search(
        r"that list is now .*labels-1\.csv; labels could not be written .*: no space", marks_of(files).notice
    )


def test_a_list_from_before_the_videos_were_moved_is_written_again(files: Path, avi_videos: Path) -> None:
    marks = with_classes(files, "walk")
    marks.give(range(len(NAMES)), "walk")
    listed, kept = marks.list_file.read_bytes(), files / FOLDER / "labels-1.csv"
    for old, label, is_kept in (("/old", "walk", False), ('"else", where', "walk", False), ("/old", "run", True)):
        moved = (str(Path(old) / os.path.relpath(path, avi_videos)) for path in list_videos(marks.list_file).paths)
        write_spans(marks.list_file, [(path, (0.0, None), label) for path in list(moved)])
        assert ("labels-1.csv" in marks_of(files).notice, kept.exists()) == (is_kept, is_kept)
        assert marks.list_file.read_bytes() == listed


def test_a_list_that_is_changed_while_the_page_is_open_is_kept(files: Path) -> None:
    """A second server that writes it is no such change."""
    marks, other = with_classes(files, "walk"), marks_of(files)
    for number in range(4):
        (marks, other)[number % 2].give([number], "walk")
    assert (marks.notice, other.notice) == ("", "")
    changed = marks.list_file.read_text() + "mine.avi,0,,run\n"
    marks.list_file.write_text(changed)
    marks.give([0], None)
    assert "labels-1.csv" in marks.notice
    assert (files / FOLDER / "labels-1.csv").read_text() == changed
    assert given(marks_of(files)) == dict.fromkeys((1, 2, 3), "walk")


def test_labels_of_spans_that_left_the_collection_are_in_the_log(files: Path) -> None:
    """So the list may lose them, without a word."""
    marks = with_classes(files, "walk")
    marks.give([0], "walk")
    log = files / FOLDER / LOG
    gone = json.dumps({**json.loads(log.read_text().splitlines()[-1]), "path": "gone.avi"})
    log.write_text(log.read_text() + gone + "\n")
    line = next(line for line in marks.list_file.read_text().splitlines() if ",0.000000," in line)
    name = marks.catalogue.paths[marks.catalogue.file_of[0]]
    marks.list_file.write_text(marks.list_file.read_text() + line.replace(name, "gone.avi") + "\n")
    again = marks_of(files)
    assert (again.notice, again.num_others) == ("", 1)
    assert not (files / FOLDER / "labels-1.csv").exists()


def test_a_log_that_is_removed_in_use_is_not_begun_anew(files: Path) -> None:
    marks = with_classes(files, "walk")
    marks.give([0], "walk")
    (files / FOLDER / LOG).unlink()
    with pytest.raises(VectorsError, match="was removed while it was in use; restore it, or start v3s serve again"):
        marks.give([1], "walk")
    assert not (files / FOLDER / LOG).exists()


def test_windows_line_ends_and_empty_lines_are_read(files: Path) -> None:
    with_classes(files, "walk").give([0, 3], "walk")
    log = files / FOLDER / LOG
    log.write_bytes(log.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    marks = marks_of(files)
    marks.give([1], "walk")
    assert given(marks) == given(marks_of(files)) == dict.fromkeys((0, 1, 3), "walk")


def test_a_torn_line_alone_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for content, left in ((b"", b""), (b"half", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\n"), (b"x" * 70_000, b"")):
        path.write_bytes(content)
        assert cut_torn_line(path) == len(content) - len(left)
        assert path.read_bytes() == left


@pytest.mark.parametrize(
    "line",
    [
        "nonsense", "[]", "{}", '{"path": 5, "start": 0, "end": null, "label": "a", "at": ""}',
        '{"path": "a", "start": -1, "end": null, "label": "a", "at": ""}',
        '{"path": "a", "start": 2, "end": 1, "label": "a", "at": ""}',
        '{"path": "a", "start": NaN, "end": null, "label": "a", "at": ""}',
        '{"path": "a", "start": 0, "end": null, "label": "a\\nb", "at": ""}',
        '{"path": "a", "start": 0, "end": null, "label": "", "at": ""}',
        '{"path": "a", "start": 0, "end": null, "label": "a", "at": "", "more": 1}',
        '{"path": "a", "start": 0, "end": null, "label": "never added", "at": ""}',
        '{"path": "", "start": 0, "end": null, "label": "a", "at": ""}',
        '{"path": "", "start": 0, "end": null, "label": null, "at": ""}',
        '{"path": "a", "path": "b", "start": 0, "end": null, "label": "a", "at": ""}',
    ],
)  # fmt: skip
def test_a_forged_line_is_refused_by_its_number(files: Path, line: str) -> None:
    with_classes(files, "a").give([0], "a")
    log = files / FOLDER / LOG
    before = log.read_text() + line + "\n"
    log.write_text(before)
    with pytest.raises(VectorsError, match=r"marks\.jsonl, line 3") as caught:
        marks_of(files)
    assert "\n" not in str(caught.value)
    assert log.read_text() == before


def test_labels_of_spans_that_are_gone_are_kept_and_counted(files: Path, client: Open) -> None:
    with_classes(files, "a", "b").give([0], "a")
    other = {"path": "gone.avi", "start": 0.0, "end": None, "label": "b", "at": ""}
    append_line(files / FOLDER / LOG, json.dumps(other))
    append_line(files / FOLDER / LOG, json.dumps({**other, "path": "left/a.avi", "start": 0.0, "end": 1.0}))
    marks = marks_of(files)
    assert (given(marks), marks.num_others) == ({0: "a"}, 2)
    assert len(list_videos(marks.list_file)) == 1
    assert client(files).get("/api/labels").json()["others"] == 2


def test_another_process_that_holds_the_file_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks_module, "_WAIT_SECONDS", 0.5)
    marks = with_classes(files, "a")
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()

    def hold() -> None:
        with only_writer(files / FOLDER):
            held.set()
            done.wait(60)

    process = context.Process(target=hold)
    process.start()
    assert held.wait(60)
    with pytest.raises(ValueError, match="in use by process"):
        marks.give([0], "a")
    done.set()
    process.join()
    marks.give([0], "a")
    assert given(marks) == {0: "a"}


def test_labels_are_shown_where_none_can_be_written(
    files: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    """A read-only or full disk is no reason not to look at a collection."""
    with_classes(files, "a").give([0], "a")
    with full_disk(0):
        marks = marks_of(files)
        assert given(marks) == {0: "a"}
        assert re.fullmatch(
            "labels could not be written when .* shown as they were: .*lock cannot be written: .*", marks.notice
        )
        with pytest.raises(SaveError, match="lock cannot be written"):
            marks.give([1], "a")
    marks.give([1], "a")
    assert given(marks_of(files)) == {0: "a", 1: "a"}


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\x00", "\x1b[31m", "a" * 101, "\ud800"])
def test_names_of_classes_are_one_line_of_text(name: str) -> None:
    with pytest.raises(ValueError, match="it must be 1 to 100 letters"):
        check_class(name)
    for known in ("Läufer <b>, \"x\" & 'y'", "می\u200cدود", "走る\u3000人"):  # as all names are shown
        check_class(known)


@pytest.mark.parametrize("name", ['=HYPERLINK("http://x")', "+1", "-1", "@a"])
def test_a_class_that_a_spreadsheet_would_run_is_refused(name: str, files: Path) -> None:
    with pytest.raises(ValueError, match="which a spreadsheet takes for a formula; begin it with a letter"):
        with_classes(files, name)
    assert marks_of(files).classes == []


def test_another_window_may_add_a_class_while_labels_are_counted(
    client: Open, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_classes(files, "a").give([0], "a")
    served, count = client(files), np.bincount

    def count_late(*values: Any, **options: Any) -> Any:
        monkeypatch.setattr(np, "bincount", count)
        assert served.post("/api/classes", json={"name": "b"}).status_code == 200
        return count(*values, **options)

    monkeypatch.setattr(np, "bincount", count_late)
    assert served.get("/api/labels").json()["classes"] == [{"name": "a", "count": 1}]


def test_a_class_that_was_not_added_is_refused(files: Path) -> None:
    marks = with_classes(files, "walk")
    with pytest.raises(ValueError, match="there is no class 'wlak'; add it first"):
        marks.give([0], "wlak")
    assert given(marks_of(files)) == {}


def test_a_probe_needs_two_classes(files: Path) -> None:
    marks = with_classes(files, "run", "walk")
    with pytest.raises(ValueError, match="no span has one"):
        train_probe(marks.catalogue, marks.class_of, marks.classes)
    marks.give([0, 1], "walk")
    with pytest.raises(ValueError, match="all 2 labels are 'walk'"):
        train_probe(marks.catalogue, marks.class_of, marks.classes)


def test_a_probe_learns_what_was_labelled_and_sorts_by_it(client: Open, spans: Path) -> None:
    served = client(spans)
    rows = {label: [4 * file for file in files] for label, files in (("left", (0, 1, 2, 3)), ("right", (4, 5, 6, 7)))}
    for label, labelled in rows.items():
        served.post("/api/classes", json={"name": label})
        served.post("/api/labels", json={"rows": labelled, "label": label})
    trained = served.post("/api/probe", json={}).json()
    assert (trained["classes"], trained["num_labels"], trained["num_held_out"]) == (["left", "right"], 8, 8)
    for number, label in enumerate(rows):
        found = served.get("/api/spans", params={"order": f"answer:{number}", "limit": 100}).json()["spans"]
        scores = [span["score"] for span in found]
        assert scores == sorted(scores, reverse=True)
        assert {span["row"] for span in found[:16]} >= set(rows[label])  # those that it was trained on
        assert found[0]["answer"]["class"] == label
    unsure = served.get("/api/spans", params={"order": "unsure"}).json()["spans"]
    assert unsure[0]["answer"]["probability"] == min(span["answer"]["probability"] for span in unsure)


def test_what_cannot_be_told_in_another_file_is_not_called_right(spans: Path) -> None:
    marks = with_classes(spans, "left", "right")
    for file in range(8):  # classes without a meaning: as many of each in every file
        marks.give([4 * file, 4 * file + 2], "left")
        marks.give([4 * file + 1, 4 * file + 3], "right")
    answers = train_probe(marks.catalogue, marks.class_of, marks.classes)
    assert answers.num_held_out == 32
    assert (answers.majority, answers.num_majority) == ("left", 16)
    assert answers.num_right < 25  # 16 by chance, 4 standard deviations are 11; the best of six penalties reaches more


def test_labels_of_one_file_cannot_be_tested(spans: Path) -> None:
    marks = with_classes(spans, "left", "right")
    marks.give([0, 1], "left")
    marks.give([2, 3], "right")
    answers = train_probe(marks.catalogue, marks.class_of, marks.classes)
    assert (answers.num_held_out, answers.num_right) == (0, 0)


def test_takes_of_one_scene_are_held_out_together_as_by_the_command(files: Path) -> None:
    marks = with_classes(files, "left", "right")
    marks.give([0, 1, 2, 3], "left")
    marks.give([4, 5, 6, 7], "right")
    for num_groups, num_held_out in ((1, 0), (2, 8)):
        paths = tuple(f"v_{side}_g{take % num_groups}_c{take}.avi" for side in ("Left", "Right") for take in range(4))
        named = replace(marks.catalogue, paths=paths)
        assert train_probe(named, marks.class_of, marks.classes).num_held_out == num_held_out
        assert len(np.unique(GroupOptions().groups_by(paths))) == 2 * num_groups


def test_every_label_is_held_out_once(spans: Path) -> None:
    marks = with_classes(spans, "left", "right")
    marks.give(list(range(0, 16)), "left")
    marks.give(list(range(16, 32)), "right")
    answers = train_probe(marks.catalogue, marks.class_of, marks.classes)
    assert answers.num_held_out == 32
    assert answers.probabilities.shape == (32, 2)
    assert answers.probabilities.sum(axis=1) == pytest.approx(1)
    predicted = answers.probabilities.argmax(axis=1)
    assert (predicted[:16] == 0).mean() > 0.9
