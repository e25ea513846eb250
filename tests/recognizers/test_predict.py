"""``v3s predict``: the same answers from videos and from their vectors, whole files and segments."""

import csv
import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

import v3s
from v3s.cli import main
from v3s.protocols.probe import ProbeConfig, probe
from v3s.recognizers.classifier import load_classifier
from v3s.recognizers.of_vectors import probabilities_of
from v3s.recognizers.predict import PredictConfig, Predicted, predict
from v3s.vectors.collection import open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan in this process: starting other processes takes longer than reading these files."""
    monkeypatch.setattr("v3s.data.scan.default_workers", lambda: 0)


@pytest.fixture(scope="module")
def probing(labelled_videos: Path) -> ProbeConfig:
    return ProbeConfig(
        data=str(labelled_videos), backbone="random:r3d@0.125", clip_frames=8, clip_size=32, num_clips=2,
        few_labels=(), workers=0, device="cpu", precision="fp32",
    )  # fmt: skip


@pytest.fixture
def config(labelled_videos: Path, recognizer: Path, tmp_path: Path) -> PredictConfig:
    return PredictConfig(
        data=str(labelled_videos), recognizer=str(recognizer), out=str(tmp_path / "p.csv"), workers=0, device="cpu",
        precision="fp32",
    )  # fmt: skip


def embedded(config: PredictConfig, folder: Path, **changes: object) -> str:
    given = EmbedConfig(
        data=config.data, backbone="random:r3d@0.125", out=str(folder), clip_frames=8, clip_size=32, num_clips=2,
        dtype="float32", workers=0, device="cpu", precision="fp32", shard_videos=5,
    )  # fmt: skip
    embed(replace(given, **changes), console=QUIET)  # type: ignore[arg-type]
    return str(folder)


def same_but_for_the_last_digit(ours: Path, theirs: Path) -> None:
    """Matrices of other shapes are multiplied in another order, so a probability may be rounded to the next number."""
    rows = [list(csv.reader(path.read_text().splitlines())) for path in (ours, theirs)]
    for mine, other in zip(*rows, strict=True):
        for cell, expected in zip(mine, other, strict=True):
            assert cell == expected or float(cell) == pytest.approx(float(expected), abs=1.5e-4)


def printed(config: PredictConfig) -> tuple[Predicted, str]:
    console = Console(file=StringIO(), width=250)
    result = predict(config, console=console)
    assert isinstance(console.file, StringIO)
    return result, console.file.getvalue()


def rows(path: str | Path) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.mark.parametrize("spans", [{}, {"segment": 0.4}, {"segment": 0.4, "segment_stride": 0.2, "fps": 20.0}])
def test_vectors_give_the_same_rows_as_their_videos(
    spans: dict[str, float], config: PredictConfig, probing: ProbeConfig, tmp_path: Path
) -> None:
    if "fps" in spans:  # the rate of a recognizer is that of its vectors
        probe(replace(probing, fps=20.0, save=str(tmp_path / "at_20")), console=QUIET)
        config = replace(config, recognizer=str(tmp_path / "at_20"))
    config = replace(config, **spans, k=8, events=str(tmp_path / "e.csv"))  # type: ignore[arg-type]
    result = predict(config, console=QUIET)
    vectors = embedded(config, tmp_path / "vectors", **spans)
    other = replace(config, data="", vectors=vectors, out=str(tmp_path / "v.csv"), events=str(tmp_path / "w.csv"),
                    segment=None, segment_stride=None, fps=None)  # fmt: skip
    assert predict(other, console=QUIET) == result
    assert result.num_spans == {0: 24, 1: 48, 3: 72}[len(spans)]
    for ours, theirs in (("v.csv", "p.csv"), ("w.csv", "e.csv")):
        same_but_for_the_last_digit(tmp_path / ours, tmp_path / theirs)


def test_half_precision_gives_nearly_the_same(config: PredictConfig, tmp_path: Path) -> None:
    predict(replace(config, k=1), console=QUIET)
    vectors = embedded(config, tmp_path / "vectors", dtype="float16")
    predict(replace(config, k=1, data="", vectors=vectors, out=str(tmp_path / "v.csv")), console=QUIET)
    for one, two in zip(rows(tmp_path / "p.csv"), rows(tmp_path / "v.csv"), strict=True):
        assert float(one["probability"]) == pytest.approx(float(two["probability"]), abs=2e-3)


def test_the_saved_recognizer_is_the_one_that_probe_measured(
    probing: ProbeConfig, config: PredictConfig, recognizer: Path
) -> None:
    measured = probe(probing, console=QUIET)
    predict(replace(config, subset="test"), console=QUIET)
    hits = tuple(row["path"].split("/")[-2] == row["class"] for row in rows(config.out))
    assert hits == measured.linear.hits
    assert json.loads((recognizer / "config.json").read_text())["results"]["top_1"] == measured.linear.top_1


def test_a_recognizer_from_stored_vectors_is_that_from_videos(
    config: PredictConfig, recognizer: Path, tmp_path: Path
) -> None:
    vectors = embedded(config, tmp_path / "vectors")
    stored = ProbeConfig(vectors=vectors, num_clips=2, few_labels=(), save=str(tmp_path / "linear"))
    probe(stored, console=QUIET)
    for name in ("backbone.safetensors", "classifier.safetensors", "config.json"):
        assert (tmp_path / "linear" / name).read_bytes() == (recognizer / name).read_bytes()


def test_of_videos_that_probe_divided_all_are_fitted(
    probing: ProbeConfig, labelled_videos: Path, tmp_path: Path
) -> None:
    """The accuracy is of a classifier that has not seen the test videos; few labels are too few to leave any out."""
    folder = tmp_path / "linear"
    whole = replace(probing, data=str(labelled_videos / "train"), save=str(folder))
    console = Console(file=StringIO(), width=250)
    measured = probe(whole, console=console)
    described = json.loads((folder / "config.json").read_text())
    assert described["results"]["num_train"] == measured.num_train + measured.num_test
    assert isinstance(console.file, StringIO)
    assert f"fitted on all {measured.num_train + measured.num_test} labelled videos" in console.file.getvalue()


def test_files_agree_with_python(config: PredictConfig, labelled_videos: Path) -> None:
    predict(replace(config, k=2), console=QUIET)
    found = v3s.load_recognizer(config.recognizer, device="cpu", precision="fp32")
    for row in rows(config.out)[:3]:
        (answer,) = found.predict(labelled_videos / row["path"], k=2)
        assert answer.start == 0
        assert answer.end == pytest.approx(float(row["end"]), abs=1e-3)
        assert answer.classes == (row["class"], row["class_2"])
        assert answer.probabilities == pytest.approx((float(row["probability"]), float(row["probability_2"])), abs=1e-4)


def test_vectors_of_clips_are_predicted_clip_by_clip(config: PredictConfig, tmp_path: Path) -> None:
    vectors = embedded(config, tmp_path / "vectors", per_clip=True, num_clips=3)
    result = predict(replace(config, data="", vectors=vectors), console=QUIET)
    assert result.num_spans == 3 * 24
    assert [float(row["start"]) for row in rows(config.out)[:3]] == pytest.approx([0, 0.24, 0.48])


def test_what_was_predicted_is_said(config: PredictConfig) -> None:
    result, text = printed(replace(config, segment=0.4, unsure_below=1.0))
    assert (result.num_spans, result.left_out) == (48, {})
    assert result.num_unsure > 40
    assert sum(result.by_class.values()) == 48
    unsure = f"{result.num_unsure} spans are unsure: the probability is below 1"
    assert f"48 spans; {unsure}" in text
    assert "calibration: none, with only 16 held-out videos (100 are needed)" in text


def test_whole_videos_of_a_list_with_times_are_no_spans(
    config: PredictConfig, probing: ProbeConfig, tmp_path: Path
) -> None:
    """Such is the list of v3s serve for vectors of whole files."""
    listed, files = tmp_path / "labels.csv", sorted(Path(config.data).rglob("*.mp4"))
    listed.write_text("\n".join(["path,start,end,label", *(f"{file},0.000000,,{file.parent.name}" for file in files)]))
    probe(replace(probing, data=str(listed), save=str(tmp_path / "saved")), console=Console(quiet=True))
    assert v3s.load_recognizer(tmp_path / "saved", device="cpu").classifier.recognition.span_seconds is None
    _, text = printed(replace(config, recognizer=str(tmp_path / "saved")))
    assert "span" not in text


def test_spans_are_called_so_where_they_are_fitted_and_where_they_are_named(
    config: PredictConfig, probing: ProbeConfig, tmp_path: Path
) -> None:
    """A list of spans has no --segment."""
    listed, out = tmp_path / "spans.csv", Console(file=StringIO(), width=250)
    files = sorted(Path(config.data).rglob("*.mp4"))
    lines = [f"{file},{start},{start + 0.4},{file.parent.name}" for file in files for start in (0, 0.4)]
    listed.write_text("\n".join(["path,start,end,label", *lines]))
    probe(replace(probing, data=str(listed), save=str(tmp_path / "saved")), console=out)
    assert isinstance(out.file, StringIO)
    sentence = "with only 48 held-out spans"
    assert sentence in out.file.getvalue()
    _, text = printed(replace(config, data=str(listed), recognizer=str(tmp_path / "saved")))
    assert "48 spans; " in text
    assert sentence in text
    assert re.search(r"class\W+spans\W+share", text)
    assert "videos" not in text
    notice = "the recognizer learned from spans of 0.4 s, so videos are cut into spans of this length"
    assert notice not in text  # the list has spans
    cut = replace(config, recognizer=str(tmp_path / "saved"), out=str(tmp_path / "cut.csv"))
    assert notice in printed(cut)[1]
    asked = replace(cut, segment=0.4, out=str(tmp_path / "asked.csv"))
    assert notice not in printed(asked)[1]
    assert rows(cut.out) == rows(asked.out)
    assert {row["end"] for row in rows(cut.out)} > {"0.4"}
    whole = replace(cut, segment=1000.0, out=str(tmp_path / "whole.csv"))
    printed(whole)
    assert len(rows(whole.out)) == len(list(Path(config.data).rglob("*.mp4")))


def test_a_threshold_that_no_probability_is_below_is_said(config: PredictConfig) -> None:
    classes = len(v3s.load_recognizer(config.recognizer, device="cpu").classes)
    _, text = printed(replace(config, unsure_below=1 / classes))
    assert f"none can be unsure: of {classes} classes the most probable has {1 / classes:.2g} or more" in text


def test_a_bad_video_is_reported(config: PredictConfig, labelled_videos: Path, tmp_path: Path) -> None:
    good = sorted(labelled_videos.rglob("*.mp4"))[:2]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in (good[0], tmp_path / "broken.mp4", good[1])))
    result, text = printed(replace(config, data=str(tmp_path / "list.txt")))
    assert [row["path"] for row in rows(config.out)] == list(map(str, good))
    assert list(result.left_out) == [str(tmp_path / "broken.mp4")]
    assert "skipped: " in text
    assert "broken.mp4" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clips": 3}, None),  # how many clips are averaged does not matter
        ({"clip_frames": 6}, "their clip is 6 frames of 32 pixels.* is 8 frames of 32 pixels"),
        ({"clip_size": 24}, "their clip is 8 frames of 24 pixels"),
        ({"stage": "conv4"}, "their feature is conv4, mean"),
        ({"pool": "max"}, "their feature is conv5, max"),
        ({"seed": 1}, r"their network \(its weights\) is"),
        ({"fps": 10.0}, "their frame rate is 10, .* is that of the file"),
    ],
)
def test_vectors_of_another_model_are_refused(
    changes: dict[str, object], message: str | None, config: PredictConfig, tmp_path: Path
) -> None:
    config = replace(config, data="", vectors=embedded(config, tmp_path / "vectors", **changes))
    if message is None:
        predict(config, console=QUIET)
        return
    with pytest.raises(VectorsError, match=f"contains vectors of another model: {message}") as caught:
        predict(config, console=QUIET)
    assert "\n" not in str(caught.value)
    assert not Path(config.out).exists()


def test_a_fine_tuned_recognizer_takes_no_vectors(config: PredictConfig, recognizer: Path, tmp_path: Path) -> None:
    values = json.loads((recognizer / "config.json").read_text())
    values["recognition"]["average"] = "probabilities"
    del values["answers"]  # as of an earlier version
    folder = tmp_path / "tuned"
    folder.mkdir()
    for name in ("backbone.safetensors", "classifier.safetensors"):
        (folder / name).write_bytes((recognizer / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(values))
    vectors = embedded(config, tmp_path / "vectors")
    with pytest.raises(VectorsError, match="averages the probabilities of clips, and vectors are means"):
        predict(replace(config, data="", vectors=vectors, recognizer=str(folder)), console=QUIET)


def test_a_recognizer_without_a_rate_takes_any(config: PredictConfig) -> None:
    """At half of the files' rate, 20 frames are 10."""
    assert predict(replace(config, fps=12.5), console=QUIET).num_spans == 24


def test_another_frame_rate_is_refused(config: PredictConfig, probing: ProbeConfig, tmp_path: Path) -> None:
    probe(replace(probing, fps=10.0, save=str(tmp_path / "at_10")), console=QUIET)
    config = replace(config, recognizer=str(tmp_path / "at_10"))
    with pytest.raises(ValueError, match=r"fps is 20\.0, but the recognizer was trained with fps 10\.0; omit --fps"):
        predict(replace(config, fps=20.0), console=QUIET)
    assert predict(replace(config, fps=10.0), console=QUIET) == predict(config, console=QUIET)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            "videos --recognizer={recognizer} --out={out} -k 9",
            1,
            "k is 9; it must be from 1 to 8, the number of classes",
        ),
        ("videos --recognizer={videos} --out={out}", 1, "contains no trained backbone"),
        ("videos --recognizer=nowhere --out={out}", 1, "nowhere: no such recognizer; v3s finetune makes one"),
        ("nowhere --recognizer={recognizer} --out={out}", 1, "nowhere does not exist"),
        ("{empty} --recognizer={recognizer} --out={out}", 1, "contains no videos"),
        ("{videos} --in={videos} --recognizer={recognizer} --out={out}", 2, "give either DATA, the videos, or --in"),
        ("--recognizer={recognizer} --out={out}", 2, "give either DATA, the videos, or --in"),
        ("--in={videos} --recognizer={recognizer} --out={out}", 1, "contains no vectors"),
        (
            "--in={videos} --recognizer={recognizer} --out={out} --segment=2",
            2,
            "--segment is 2.0, but vectors are listed",
        ),
        ("--in={videos} --recognizer={recognizer} --out={out} --subset=test", 2, "omit it with --in"),
        ("{videos} --recognizer={recognizer} --out={out} --events={out}", 2, "give two files"),
        ("{videos} --recognizer={recognizer} --out={out} --unsure-below=2", 2, "--unsure-below is 2.0; it must be"),
        ("{videos} --recognizer={recognizer}", 2, "--out is required"),
    ],
)
def test_mistakes_are_one_line(
    arguments: str, code: int, message: str, config: PredictConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    places = {"recognizer": config.recognizer, "videos": config.data, "out": config.out}
    words = arguments.format(**places, empty=tmp_path / "empty.txt")
    assert main(["predict", *words.replace("videos ", f"{config.data} ", 1).split()]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 2
    assert not Path(config.out).exists()


def test_other_answers_that_were_there_are_kept(
    config: PredictConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = embedded(config, tmp_path / "vectors")
    words = ["predict", "--in", vectors, "--recognizer", config.recognizer, "--out", config.out]
    words += ["--events", str(tmp_path / "e.csv")]
    for more in ([], [], ["--unsure-below", "0.99"]):
        capsys.readouterr()
        assert main([*words, *more]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"{config.out}\n{tmp_path / 'e.csv'}\n")
    assert f"other answers were there before; they are now {tmp_path / 'p-1.csv'}" in printed
    assert {path.name for path in tmp_path.glob("*.csv")} == {"p.csv", "p-1.csv", "e.csv", "e-1.csv"}
    assert [row["class"] for row in rows(config.out)] == [row["class"] for row in rows(tmp_path / "p-1.csv")]


def test_stored_vectors_with_nan_are_refused(config: PredictConfig, tmp_path: Path) -> None:
    vectors = open_vectors(embedded(config, tmp_path / "vectors"))
    shard = replace(vectors.shards[1], vectors=torch.full_like(vectors.shards[1].vectors, torch.nan))
    with pytest.raises(VectorsError, match="contains NaN or infinity"):
        list(probabilities_of(load_classifier(config.recognizer), replace(vectors, shards=(shard,))))
    without = replace(vectors.shards[0], lengths=None)
    with pytest.raises(VectorsError, match="has no lengths of vectors"):
        list(probabilities_of(load_classifier(config.recognizer), replace(vectors, shards=(without,))))
