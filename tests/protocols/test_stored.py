"""Stored vectors in place of videos and a network: the same figures, labels from lists, and what cannot serve."""

import io
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from v3s.data.synthetic import make_clips
from v3s.export.export import ExportConfig, export
from v3s.features.encoder import LAST, Feature
from v3s.protocols.labelled.features import FeatureOptions, LabelledVectors, labelled_vectors
from v3s.protocols.probe import ProbeConfig, probe
from v3s.protocols.retrieve import RetrieveConfig, retrieve
from v3s.protocols.similarity import SimilarityConfig, similarity
from v3s.vectors.collection import open_vectors, shard_path
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.labels import GIVEN, Contents, join, list_labelled
from v3s.vectors.merge import MergeConfig, merge

QUIET = Console(quiet=True)
NETWORK: dict[str, Any] = {
    "backbone": "random:r3d@0.125", "clip_frames": 8, "clip_size": 32, "num_clips": 2, "workers": 0, "device": "cpu"
}  # fmt: skip


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.data.scan.default_workers", lambda: 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, each with six takes of two videos of 24 frames, named as in UCF101; the last is a copy."""
    folder = tmp_path_factory.mktemp("takes") / "videos"
    made = make_clips(folder.parent / "made", num_videos=24, num_frames=24, height=32, width=48)
    for number, source in enumerate(made):
        kind, take = "ab"[number % 2], number // 4
        path = folder / kind / f"v_{kind}_g{take:02}_c{number // 2 % 2:02}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    shutil.copy(folder / "a/v_a_g00_c00.mp4", folder / "a/v_a_g05_c01.mp4")
    return folder


def embedded(data: Path, out: Path, **options: Any) -> Path:
    embed(EmbedConfig(data=str(data), out=str(out), **({"dtype": "float32"} | NETWORK | options)), console=QUIET)
    return out


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded(folder, tmp_path_factory.mktemp("stored") / "vectors")


def recording() -> Console:
    return Console(file=io.StringIO(), width=1000)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def of_videos(feature: Feature | None = None, **options: Any) -> LabelledVectors:
    return labelled_vectors(FeatureOptions(**(NETWORK | options)), feature or Feature(), console=QUIET, divides=True)


def of_store(
    vectors: Path, feature: Feature | None = None, *, console: Console = QUIET, **options: Any
) -> LabelledVectors:
    given = FeatureOptions(vectors=str(vectors), **({"num_clips": 2} | options))
    return labelled_vectors(given, feature or Feature(), console=console, divides=True)


def check_equal(one: LabelledVectors, other: LabelledVectors) -> None:
    """The same numbers bit by bit, labels, groups and files."""
    assert torch.equal(one.train, other.train)
    assert torch.equal(one.test, other.test)
    for name in ("train_paths", "test_paths", "classes", "left_out"):
        assert getattr(one.parts, name) == getattr(other.parts, name), name
    for name in ("train_labels", "test_labels", "test_groups"):
        assert getattr(one.parts, name).tolist() == getattr(other.parts, name).tolist(), name
    assert one.parts.train_groups is not None
    assert other.parts.train_groups is not None
    assert one.parts.train_groups.tolist() == other.parts.train_groups.tolist()
    assert one.space == other.space


# The same figures


def test_a_probe_of_vectors_is_that_of_their_videos(labelled_videos: Path, tmp_path: Path) -> None:
    vectors = embedded(labelled_videos, tmp_path / "vectors")
    options: dict[str, Any] = {"few_labels": (1,), "repeats": 2}
    figures = [
        asdict(probe(ProbeConfig(**given, **options), console=QUIET))
        for given in ({"data": str(labelled_videos), **NETWORK}, {"vectors": str(vectors), "num_clips": 2})
    ]
    for values in figures:
        del values["minutes"]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("options", [{"pool": "max"}, {"pool": "mean", "centre": True, "stage": "conv4"}])
def test_a_retrieval_of_vectors_is_that_of_their_videos(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    feature = {name: options[name] for name in ("pool", "stage") if name in options}
    vectors = embedded(folder, tmp_path / "vectors", **feature)
    one = retrieve(RetrieveConfig(data=str(folder), **NETWORK, **options), console=QUIET)
    shown: dict[str, Any] = {"page": str(tmp_path / "page.html"), "page_queries": 2}
    other = retrieve(RetrieveConfig(vectors=str(vectors), num_clips=2, **options, **shown), console=QUIET)
    assert one == other
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 2 * 6


def test_the_last_stage_of_vectors_is_that_of_their_network(
    folder: Path, stored: Path, foundations: dict[str, Path], tmp_path: Path
) -> None:
    last = Feature(LAST)
    check_equal(of_videos(last, data=str(folder)), of_store(stored, last))
    network = {"backbone": f"hf:{foundations['videomae']}", "clip_frames": None, "clip_size": None}
    vectors = embedded(folder, tmp_path / "foundation", **network)
    found = of_videos(last, data=str(folder), **network)
    assert found.space.feature.stage == "pooled"
    assert found.space.view.resize is not None
    check_equal(found, of_store(vectors, last))
    middle = embedded(folder, tmp_path / "middle", stage="conv4")
    with pytest.raises(VectorsError, match=r"was embedded with --stage conv4, not --stage conv5; give --stage conv4"):
        of_store(middle, last)


def test_a_foundation_model_is_not_saved_as_a_recognizer(
    folder: Path, foundations: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"hf:{foundations['vit']}"
    vectors = embedded(folder, tmp_path / "vectors", backbone=name, clip_frames=1, clip_size=None, num_clips=1)
    monkeypatch.setattr("v3s.protocols.probe.labelled_vectors", None)  # refused before the long work
    each: list[dict[str, Any]] = [{"data": str(folder), "backbone": name}, {"vectors": str(vectors)}]
    for given in each:
        with pytest.raises(ValueError, match=r"hf:.*: .* neither trained here nor saved with a classifier"):
            probe(ProbeConfig(save=str(tmp_path / "saved"), **given), console=QUIET)
    assert not (tmp_path / "saved").exists()


def test_official_lists_find_stored_names_of_videos_that_are_gone(folder: Path, tmp_path: Path) -> None:
    lists, moved = tmp_path / "lists", tmp_path / "moved"
    lists.mkdir()
    shutil.copytree(folder, moved)
    for part, takes in (("train", "01234"), ("test", "5")):
        names = [path for path in sorted(folder.rglob("*.mp4")) if path.name[6] in takes]
        lines = (f"{path.relative_to(folder)} {'ab'.index(path.parent.name) + 1}\n" for path in names)
        (lists / f"{part}list01.txt").write_text("".join(lines))
    vectors = embedded(moved, tmp_path / "vectors")
    expected = of_videos(data=str(moved), splits=str(lists))
    shutil.rmtree(moved)
    check_equal(expected, of_store(vectors, splits=str(lists)))


def test_segments_are_samples(folder: Path, tmp_path: Path) -> None:
    vectors = embedded(folder, tmp_path / "vectors", segment=0.4)
    check_equal(of_videos(data=str(folder), segment=0.4), of_store(vectors))


def test_the_card_of_a_saved_probe_counts_spans_and_says_which_classifier_was_tested(
    folder: Path, tmp_path: Path
) -> None:
    """The classifier that is saved was fitted on the spans of the test, too."""
    vectors, saved = embedded(folder, tmp_path / "vectors", segment=0.4), tmp_path / "saved"
    found = probe(ProbeConfig(vectors=str(vectors), save=str(saved), few_labels=(1,)), console=QUIET)
    card = export(ExportConfig(run=str(saved), out=str(tmp_path / "model")), console=QUIET) / "README.md"
    text, number = card.read_text(encoding="utf-8"), found.num_train + found.num_test
    assert f"| spans | number |\n|---|---|\n| for training | {number} |" in text
    assert "| on test spans |" in text
    assert f"| always the most frequent class | {found.majority:.1%} |" in text
    assert (
        f"classifier was fitted on {found.num_train} of the {number} spans. The one here was then fitted on all" in text
    )


def test_a_recording_is_divided_by_stretches_with_a_gap(folder: Path, tmp_path: Path) -> None:
    """Also if the division is given again."""
    make_clips(tmp_path / "made", num_videos=1, num_frames=2880, height=16, width=16)
    file = next((tmp_path / "made").rglob("*.mp4"))
    lines = [f"{file},{start},{start + 2},{'ab'[start // 2 % 2]}" for start in range(0, 118, 2)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,start,end,label", *lines]))
    vectors = embedded(tmp_path / "labels.csv", tmp_path / "vectors", fps=5.0, clip_size=16)
    options: dict[str, Any] = {"fps": 5.0, "clip_size": 16}
    found = of_videos(data=str(tmp_path / "labels.csv"), out=str(tmp_path / "a.json"), **options)
    check_equal(found, of_store(vectors, **options))
    times = [sorted(start for start, _ in part.videos.bounds) for part in (found.parts.train, found.parts.test)]
    assert 4 <= len(times[1]) <= 20
    assert min(abs(one - other) for one in times[0] for other in times[1]) >= 12
    again = of_videos(data=str(file.parent), splits=str(tmp_path / "a-split"), **options)
    assert torch.equal(found.train, again.train)
    assert torch.equal(found.test, again.test)
    assert found.parts.train_groups is not None
    assert again.parts.train_groups is not None
    assert found.parts.train_groups.tolist() == again.parts.train_groups.tolist()


def test_merged_and_appended_vectors_serve_too(folder: Path, stored: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(folder / "a", part / "a")
    grown = embedded(part, tmp_path / "grown")
    shutil.copytree(folder / "b", part / "b")
    embedded(part, grown, append=True)
    parts = [embedded(folder / kind, tmp_path / kind) for kind in "ab"]
    merge(MergeConfig(parts=tuple(map(str, parts)), out=str(tmp_path / "merged")), console=QUIET)
    for vectors in (grown, tmp_path / "merged"):
        check_equal(of_store(stored), of_store(vectors))


# The division


def test_copies_and_takes_are_on_one_side_and_the_division_can_be_given_again(
    folder: Path, stored: Path, tmp_path: Path
) -> None:
    console = recording()
    found = of_store(stored, console=console, out=str(tmp_path / "probe.json"), seed=3)
    sides = [{name[:9] for name in paths} for paths in (found.parts.train_paths, found.parts.test_paths)]
    assert not sides[0] & sides[1]
    copies = {"a/v_a_g00", "a/v_a_g05"}
    assert copies <= sides[0] or copies <= sides[1]
    assert {path[0] for path in found.parts.test_paths} == {"a", "b"}
    assert "divided by seed 3: " in printed(console)
    assert f"give it again with --splits {tmp_path / 'probe-split'}" in printed(console)
    train, test = (str(tmp_path / f"probe-split/{part}.csv") for part in ("train", "test"))
    for again in (
        of_store(stored, splits=str(tmp_path / "probe-split")),
        of_store(stored, data=train, test_data=test),
        of_videos(data=str(folder), splits=str(tmp_path / "probe-split")),
    ):
        check_equal(found, again)


def test_a_class_with_one_group_is_trained_on_and_said(stored: Path, tmp_path: Path) -> None:
    lines = [f"{kind}/v_{kind}_g{take:02}_c00.mp4 {kind}" for kind in "ab" for take in range(3)]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "b/v_b_g04_c00.mp4 rare"]))
    console = recording()
    found = of_store(stored, data=str(tmp_path / "list.txt"), console=console)
    assert "; 1 class with one group, on one side only: rare (training)" in printed(console)
    assert "rare" in found.parts.classes
    assert found.parts.num_unknown == 0


def test_copies_across_given_parts_are_said(folder: Path, stored: Path, tmp_path: Path) -> None:
    for part, takes in (("train", "01234"), ("test", "5")):
        names = [path for path in sorted(folder.rglob("*.mp4")) if path.name[6] in takes]
        (tmp_path / f"{part}.csv").write_text("".join(f"{path},{path.parent.name}\n" for path in names))
    lists: dict[str, Any] = {"data": str(tmp_path / "train.csv"), "test_data": str(tmp_path / "test.csv")}
    console = recording()
    of_store(stored, console=console, **lists)
    assert "1 of 4 test videos is a copy of a training video, first: a/v_a_g05_c01.mp4" in printed(console)
    console = recording()
    labelled_vectors(FeatureOptions(**NETWORK, **lists), Feature(), console=console)
    assert "1 of 4 test videos is a copy of a training video" in printed(console)


# Labels of a list


def test_labelled_spans_find_the_rows_that_lie_in_them(folder: Path, tmp_path: Path) -> None:
    """One vector per clip of 8 frames, 24 frames a second: rows of 0 to 1/3 s, 1/3 to 2/3 s and 2/3 to 1 s."""
    vectors = open_vectors(embedded(folder, tmp_path / "vectors", per_clip=True, stride=8))
    seconds = vectors.video(0).seconds
    third = seconds / 3
    (tmp_path / "labels.csv").write_text(
        "path,start,end,label\n"
        f"{folder}/a/v_a_g00_c00.mp4,0,{2 * third + 0.01},first\n"
        f"{folder}/a/v_a_g00_c00.mp4,{2 * third + 0.02},,last\n"
        f"b/v_b_g00_c00.mp4,{third:.3f},{2 * third:.3f},middle\n"
        f"{folder}/b/v_b_g01_c00.mp4,,,whole\n"
    )
    contents = Contents.of(vectors)
    joined = join(contents, list_labelled(contents, tmp_path / "labels.csv"))
    assert joined.videos.labels == ("first", "last", "middle", "whole")
    assert [vectors.span_of(row) for row in joined.rows.tolist()] == [
        (0, 8), (8, 16), (16, 24), (8, 16), (0, 8), (8, 16), (16, 24)
    ]  # fmt: skip
    assert joined.samples.tolist() == [0, 0, 1, 2, 3, 3, 3]
    features = joined.features(vectors)
    assert torch.allclose(features[0], joined_rows(vectors, joined.rows[:2].tolist()).mean(dim=0))
    (tmp_path / "labels.csv").write_text(f"path,start,end,label\n{folder}/a/v_a_g00_c00.mp4,0,{third / 3},short\n")
    with pytest.raises(VectorsError, match=r"no vector of 1 of 1 listed span, first: a/v_a_g00_c00.mp4 .*--per-clip"):
        join(contents, list_labelled(contents, tmp_path / "labels.csv"))


def test_spans_without_a_vector_or_outside_of_their_file_are_left_out(folder: Path, tmp_path: Path) -> None:
    vectors = open_vectors(embedded(folder, tmp_path / "vectors", per_clip=True, stride=8))
    contents, first = Contents.of(vectors), f"{folder}/a/v_a_g00_c00.mp4"
    lines = [
        f"{first},0,0.01,short",
        f"{folder}/b/v_b_g00_c00.mp4,0.3,9,outside",
        f"{folder}/b/v_b_g01_c00.mp4,,,whole",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["Path, Start, End, Label", *lines]))
    listed = list_labelled(contents, tmp_path / "labels.csv")
    with pytest.raises(VectorsError, match=r"no vector of 1 of 3 listed spans.*; or give --allow-missing to use the"):
        join(contents, listed)
    joined = join(contents, listed, allow_missing=True)
    assert joined.videos.labels == ("whole",)
    outside = "0:00:00.3 to 0:00:09.0 is outside of the video: it is 0:00:01.0 long"
    assert list(joined.left_out.values()) == [outside, "no vector lies in it by more than half"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,start,end,label", *lines[:2]]))
    with pytest.raises(VectorsError, match="no vector of 1 of 2 listed spans, first: a/v_a_g00"):
        join(contents, list_labelled(contents, tmp_path / "labels.csv"), allow_missing=True)


def joined_rows(vectors: Any, rows: list[int]) -> torch.Tensor:
    shard = vectors.shards[0]
    found: torch.Tensor = shard.vectors[rows] * shard.lengths[rows][:, None]
    return found


def test_spans_of_unknown_files_are_refused_or_left_out(folder: Path, stored: Path, tmp_path: Path) -> None:
    lines = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.mp4"))]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "a/other.mp4,a"]))
    message = (
        r"has no vectors of 1 of the 25 entries of list .*, first: a/other.mp4; .*--allow-missing to use the .* 24"
    )
    with pytest.raises(VectorsError, match=message):
        of_store(stored, data=str(tmp_path / "labels.csv"))
    found = of_store(stored, data=str(tmp_path / "labels.csv"), allow_missing=True)
    assert len(found.train) + len(found.test) == 24
    (tmp_path / "labels.csv").write_text("x.mp4,a\ny.mp4,b\n")
    with pytest.raises(VectorsError, match=r"has no vectors of 2 of the 2 entries of list [^;]*; [^;]*; embed all"):
        of_store(stored, data=str(tmp_path / "labels.csv"), allow_missing=True)


def test_labels_of_the_page_from_before_the_videos_were_moved_are_told_what_helps(stored: Path, tmp_path: Path) -> None:
    vectors = Path(shutil.copytree(stored, tmp_path / "vectors"))
    given = vectors.joinpath(*GIVEN)
    given.parent.mkdir()
    given.write_text("/old/place/a.mp4,a\n/old/place/b.mp4,b\n")
    remedy = f"first: /old/place/a.mp4; start v3s serve {vectors} once: it writes the list again with the new paths"
    with pytest.raises(VectorsError, match=f"{re.escape(remedy)}$"):
        of_store(vectors, data=str(given))


def test_a_video_that_could_not_be_embedded_is_skipped_and_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "videos")
    (tmp_path / "videos/a/v_a_g09_c00.mp4").write_bytes(b"no video")
    vectors, console = embedded(tmp_path / "videos", tmp_path / "vectors"), recording()
    expected = of_videos(data=str(tmp_path / "videos"))
    (tmp_path / "list.txt").write_text(
        "\n".join(f"{path} {path.parent.name}" for path in sorted((tmp_path / "videos").rglob("*.mp4")))
    )
    found = of_store(vectors, data=str(tmp_path / "list.txt"), console=console)
    check_equal(expected, found)
    assert list(found.parts.left_out) == ["a/v_a_g09_c00.mp4"]
    assert "skipped: a/v_a_g09_c00.mp4: " in printed(console)


# What cannot serve


def test_another_feature_or_other_clips_are_refused_with_the_command(folder: Path, stored: Path) -> None:
    with pytest.raises(VectorsError) as caught:
        retrieve(RetrieveConfig(vectors=str(stored), clip_frames=16, pool="max"), console=QUIET)
    assert "\n" not in str(caught.value)
    assert "was embedded with --pool mean --clip-frames 8, not --pool max" in str(caught.value)
    assert f"v3s embed {folder} --backbone random:r3d@0.125 --stage conv5 --pool max" in str(caught.value)
    given = RetrieveConfig(vectors=str(stored), clip_frames=8, num_clips=2, pool="mean")
    assert retrieve(given, console=QUIET) == retrieve(RetrieveConfig(vectors=str(stored)), console=QUIET)
    with pytest.raises(VectorsError, match="was embedded with --num-clips 2, not --num-clips 10"):
        retrieve(RetrieveConfig(vectors=str(stored), num_clips=10), console=QUIET)


def test_labels_that_were_given_in_the_page_are_named(stored: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    shutil.copytree(stored, vectors)
    (vectors / "labels").mkdir()
    (vectors / "labels/labels.csv").write_text("path,start,end,label\n")
    console = Console(file=io.StringIO(), width=1000)
    of_store(vectors, console=console)
    assert f"{vectors}/labels/labels.csv has labels that were given in v3s serve; give it as DATA" in printed(console)


def damage(vectors: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Rewrite the first shard with other numbers, and without a checksum."""
    path = shard_path(vectors, 0)
    stamp = open_vectors(vectors).description
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"fingerprint": stamp.space.fingerprint, "stamp": stamp.stamp})


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["vectors"][3, 2] = torch.nan


def set_endless(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lengths"][3] = torch.inf


def drop_lengths(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["lengths"]


@pytest.mark.parametrize("change", [set_nan, set_endless])
def test_numbers_that_are_not_finite_are_refused(
    stored: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    vectors = tmp_path / "vectors"
    shutil.copytree(stored, vectors)
    damage(vectors, change)
    with pytest.raises(VectorsError, match=r"shard-00000.safetensors: contains NaN or infinity; run v3s embed again"):
        of_store(vectors)


def test_vectors_of_an_earlier_version_have_no_lengths(stored: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    shutil.copytree(stored, vectors)
    damage(vectors, drop_lengths)
    with pytest.raises(VectorsError, match="has no lengths of vectors, as an earlier version wrote it; embed again"):
        of_store(vectors)


def test_unlabelled_files_and_a_single_class_are_refused(folder: Path, stored: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.rglob("v_a_g0[01]*.mp4"):
        shutil.copy(path, flat)
    vectors = embedded(flat, tmp_path / "vectors")
    with pytest.raises(
        ValueError, match=r"4 of 4 videos have no label.*a list with labels as DATA .*give the official --splits"
    ):
        of_store(vectors)
    (tmp_path / "one.txt").write_text("".join(f"{path} a\n" for path in flat.iterdir()))
    with pytest.raises(ValueError, match="all videos are of the class 'a'; at least two classes are needed"):
        of_store(vectors, data=str(tmp_path / "one.txt"))
    names = sorted(flat.iterdir())
    (tmp_path / "two.txt").write_text(f"{names[0]} a\n{names[2]} b\n")
    with pytest.raises(ValueError, match="no class has videos in two groups, one to train on and one to") as found:
        of_store(vectors, data=str(tmp_path / "two.txt"))
    assert str(found.value).endswith("--test-data (a group is what --group says; here v_a_g00)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data is missing; give DATA and --backbone, or vectors with --in"),
        ({"data": "x"}, "backbone is missing"),
        ({"vectors": "v", "backbone": "b"}, r"backbone \(b\) and --in cannot be combined"),
        ({"vectors": "v", "data": "d", "splits": "s"}, r"data \(d\) and splits \(s\) of --in cannot be combined"),
        ({"vectors": "v", "test_data": "d"}, "test_data is d, without a list of training videos"),
        ({"vectors": "v", "segment": 2.0}, "segment is 2, but stored vectors are cut already"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureOptions(**options)


def test_a_folder_is_no_list_and_a_split_needs_lists(folder: Path, stored: Path) -> None:
    with pytest.raises(ValueError, match="is not a list file; with --in give a list"):
        of_store(stored, data=str(folder))
    with pytest.raises(ValueError, match=r"absent\.csv does not exist; with --in give a list"):
        of_store(stored, data=str(folder / "absent.csv"))
    with pytest.raises(ValueError, match="split 2 was given, without the lists that have it"):
        of_store(stored, split=2)


def test_half_precision_is_said(folder: Path, tmp_path: Path) -> None:
    vectors, console = embedded(folder, tmp_path / "vectors", dtype="float16"), recording()
    found = of_store(vectors, console=console)
    assert "float16 numbers; figures of the videos to the last digit need --dtype float32" in printed(console)
    exact = of_videos(data=str(folder))
    torch.testing.assert_close(found.train, exact.train, rtol=0.01, atol=1e-3)
    assert not torch.equal(found.train, exact.train)


# Pairs


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of three videos."""
    folder = tmp_path_factory.mktemp("classes")
    make_clips(folder, num_videos=24, num_frames=16, height=32, width=48)
    return folder


def test_pairs_of_stored_stages_are_those_of_their_videos(classes: Path, tmp_path: Path) -> None:
    stages = ("conv4", "conv5")
    folders = tuple(str(embedded(classes, tmp_path / stage, stage=stage, stride=4)) for stage in stages)
    options: dict[str, Any] = {"stages": stages, "stride": 4, "num_folds": 2, "pairs_per_fold": 12}
    drawn = [
        similarity(SimilarityConfig(**given, **options), console=QUIET)
        for given in ({"data": str(classes), **NETWORK}, {"vectors": folders})
    ]
    assert (drawn[0].result, drawn[0].num_videos) == (drawn[1].result, drawn[1].num_videos)
    names = sorted(path.relative_to(classes).as_posix() for path in classes.rglob("*.mp4"))
    rows = [f"{names[n]},{names[n + 1 + n % 2]},{n % 2},{n // 8}" for n in range(16)]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,same,fold", *rows]))
    options |= {"pairs": str(tmp_path / "pairs.csv")}
    read = [
        similarity(SimilarityConfig(**given, **options), console=QUIET)
        for given in ({"data": str(classes), **NETWORK}, {"vectors": folders})
    ]
    assert read[0].result == read[1].result
    (tmp_path / "pairs.csv").write_text(f"a,b,same,fold\n{names[0]},other.mp4,1,0\n{names[0]},{names[1]},0,1\n")
    with pytest.raises(ValueError, match=r"1 of 3 videos cannot be used.*other.mp4: no vector in the collection"):
        similarity(SimilarityConfig(vectors=folders, **options), console=QUIET)
    with pytest.raises(VectorsError, match=r"conv5 was embedded with --stage conv5, not --stage conv4; give --stage"):
        similarity(SimilarityConfig(vectors=folders[::-1], **options), console=QUIET)
    with pytest.raises(ValueError, match=r"stages are conv4, conv5, and --in names 1 folder; give one for each stage"):
        SimilarityConfig(vectors=folders[:1], **options)
    other = str(embedded(classes, tmp_path / "other", stage="conv5", stride=4, seed=1))
    with pytest.raises(VectorsError, match="are of other networks, clips or videos"):
        similarity(SimilarityConfig(vectors=(folders[0], other), **options), console=QUIET)
