"""The demo on a tiny scale: the full pipeline, and what its page contains."""

import html
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from v3s.cli import main
from v3s.commands.demo import DemoConfig, _draw, _lie_deep, demo
from v3s.data.groups import number_groups
from v3s.data.lists.splits import list_videos

QUIET = Console(quiet=True)


def test_own_videos_from_folder_to_report(small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 24)
    report = demo(DemoConfig(data=str(small_videos), out=str(tmp_path / "demo"), epochs=1, workers=0), console=QUIET)
    page = report.read_text()
    assert page.count("data:video/mp4;base64,") >= 6
    headings = ("Accuracy on held-out videos", "Learning curves", "Confusion matrices", "Transformed clips")
    for heading in (*headings, "Video retrieval", "Grad-CAM", "Speediness over time"):
        assert heading in page
    assert page.count("data:image/png;base64,") >= 2
    trained, random = (
        json.loads((tmp_path / "demo" / f"{name}.json").read_text()) for name in ("retrieval", "retrieval_random")
    )
    assert (trained["num_gallery"], trained["num_queries"]) == (random["num_gallery"], random["num_queries"]) == (12, 4)
    assert trained["fingerprint"] != random["fingerprint"]
    lists = [(tmp_path / "demo" / name).read_text().splitlines() for name in ("train.txt", "test.txt")]
    train, test = ([line.rsplit(",", 1)[0] for line in lines] for lines in lists)
    assert (len(train), len(test), set(train) & set(test)) == (12, 4, set())
    with pytest.raises(ValueError, match="already contains a demo; use --overwrite to replace it"):
        demo(DemoConfig(data=str(small_videos), out=str(tmp_path / "demo")), console=QUIET)


def test_videos_without_classes_have_no_retrieval(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(small_videos.rglob("*.mp4"))[:6]):
        shutil.copy(path, tmp_path / "flat" / f"a video, {number}.mp4")
    config = DemoConfig(data=str(tmp_path / "flat"), out=str(tmp_path / "demo"), epochs=1, workers=0)
    page = demo(config, console=QUIET).read_text()
    assert "Video retrieval" not in page
    assert "Speediness over time" in page


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="does not contain a demo"):
        demo(DemoConfig(out=str(tmp_path), overwrite=True), console=QUIET)
    (tmp_path / "demo.json").write_text('{"game": "of mine"}')
    with pytest.raises(ValueError, match="does not contain a demo"):
        demo(DemoConfig(out=str(tmp_path), overwrite=True), console=QUIET)
    assert (tmp_path / "notes.txt").exists()


def test_too_few_videos_are_an_error(small_videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 2 usable videos; a demo needs 6"):
        demo(DemoConfig(data=str(small_videos / "spin"), out=str(tmp_path / "demo"), workers=0), console=QUIET)


def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)


def parts_of(out: Path, data: Path) -> tuple[list[str], list[str]]:
    """The paths of the training and of the held-out videos."""
    train, test = (list_videos(data, splits=out / name, subset="all") for name in ("train.txt", "test.txt"))
    return list(train.paths), list(test.paths)


@pytest.mark.parametrize(
    ("name", "options", "group_of", "classes"),
    [
        ("{0}/film {1}/{2}.mp4", {}, lambda path: path.rsplit("/", 1)[0], {"0", "1"}),
        ("film_{0}{1}/{2}.mp4", {"group": "^[^/]+"}, lambda path: path.split("/")[0], set()),
        ("a/{0}/v_Class{0}_g{1:02}_c{2:02}.mp4", {}, lambda path: path.split("_c")[0], {"0", "1"}),
    ],
    ids=["folders in folders", "folders by --group", "names of UCF101"],
)
def test_a_group_is_on_one_side(
    name: str, options: dict[str, str], group_of: Callable[[str], str], classes: set[str],
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Clips of a film are trained on, validated on or held out together, and the page says so."""
    few_clips(monkeypatch)
    data, sources = tmp_path / "data", sorted(small_videos.rglob("*.mp4"))
    for number, source in enumerate(sources):
        path = data / name.format(number // 8, number // 2 % 4, number % 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    config = DemoConfig(data=str(data), out=str(tmp_path / "demo"), epochs=1, workers=0, **options)  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=1000)
    page = demo(config, console=console).read_text()
    train, test = parts_of(tmp_path / "demo", data)
    assert sorted([*train, *test]) == sorted(str(path.relative_to(data)) for path in data.rglob("*.mp4"))
    assert not {group_of(path) for path in train} & {group_of(path) for path in test}
    assert len(test) == 4
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "held out: 4 videos in 2 groups; no group is on both sides" in shown
    assert "Held out: 4 videos in 2 groups; no group is on both sides." in page
    written = yaml.safe_load((tmp_path / "demo/run/config.yaml").read_text())
    groups = number_groups(train, written.get("group"))
    assert len(set(groups.tolist())) == len({group_of(path) for path in train}) == 6  # validation knows them too
    assert json.loads((tmp_path / "demo/scores.json").read_text())["temporal"]["num_groups"] == 2
    retrieval = tmp_path / "demo/retrieval.json"
    assert retrieval.exists() == bool(classes)
    if classes:
        assert json.loads(retrieval.read_text())["num_test_groups"] == 2


def test_without_groups_it_is_said_and_what_is_next_works(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_clips(monkeypatch)
    data = tmp_path / "my videos"
    shutil.copytree(small_videos, data)
    config = DemoConfig(data=str(data), out=str(tmp_path / "demo"), epochs=1, workers=0)
    console = Console(file=io.StringIO(), width=1000)
    page = demo(config, console=console).read_text()
    for text in (console.file.getvalue(), html.unescape(page)):  # type: ignore[attr-defined]
        assert "drawn one by one, since neither names nor folders show groups; clips of one film may be on both" in text
    commands = re.findall(r"<td>(v3s .*?)</td>", page)
    assert [shlex.split(html.unescape(command))[1] for command in commands] == ["preview", "check", "pretrain"]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(html.unescape(command))[1:]
        small = ["--width=0.125", "--clip-size=32", "--epochs=1", "--workers=0", "--statistics-clips=0"]
        assert main([*words, *(small if words[0] == "pretrain" else [])]) == 0, capsys.readouterr().err
    assert (tmp_path / "RUN/backbone.safetensors").exists()


def test_which_folders_are_films() -> None:
    """Two deep below what all have in common; a folder of classes inside another, or of subsets, is not."""
    assert _lie_deep(["a/x/1.mp4", "a/y/1.mp4", "b/x/1.mp4"])
    assert _lie_deep(["train/a/x/1.mp4", "test/a/y/1.mp4"])
    assert _lie_deep(["/data/a/x/1.mp4", "/data/b/y/1.mp4"])
    assert not _lie_deep(["a/x/1.mp4", "b/2.mp4"])
    assert not _lie_deep(["videos/a/1.mp4", "videos/b/1.mp4"])
    assert not _lie_deep(["train/a/1.mp4", "test/a/2.mp4"])
    assert not _lie_deep(["1.mp4", "2.mp4"])


def test_two_groups_are_too_few(small_videos: Path, tmp_path: Path) -> None:
    config = DemoConfig(data=str(small_videos), out=str(tmp_path / "demo"), workers=0, group="^([bd]?)")
    groups = {path.name[0] if path.name[0] in "bd" else "" for path in small_videos.iterdir()}
    config = replace(config, group="^(b?)") if len(groups) > 2 else config
    with pytest.raises(ValueError, match=r"the 16 usable videos form only 2 groups; a demo needs 3"):
        demo(config, console=QUIET)


@pytest.mark.parametrize("seed", range(20))
def test_two_groups_remain_to_train_and_to_validate_on(seed: int) -> None:
    """One large film and two small ones: never both small ones are held out."""
    paths = [f"{film}/{number}.mp4" for film, count in (("a", 20), ("b", 2), ("c", 2)) for number in range(count)]
    groups = number_groups(paths, "(.+)/")
    (train, test), num_held, _ = _draw(paths, groups, np.arange(24, dtype=np.uint64), seed)
    assert len({path[0] for path in train}) == 2
    assert ({path[0] for path in test}, num_held) in (({"b"}, 1), ({"c"}, 1))
