"""RUN/report.html: its numbers are those of the run, it is written while the run trains, and never in its way."""

import io
import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s import PretrainConfig, pretrain
from v3s.backbones import create_backbone
from v3s.commands.report import report as module
from v3s.commands.report.answers import Answers, Gallery, KeptAnswers, is_still
from v3s.commands.report.page import Findings, findings_page
from v3s.data.clips import PretextClips
from v3s.data.synthetic import make_clips
from v3s.features.saved import load_backbone
from v3s.pages.images import encode_mp4
from v3s.pretext.model import PretextModel, pretext_objective
from v3s.pretext.task import TASKS
from v3s.train import running_page
from v3s.train.callbacks import Callback
from v3s.train.distributed import Processes
from v3s.train.run import read_metrics
from v3s.train.stop import TrainingStoppedError
from v3s.video.container import VideoError

QUIET = Console(quiet=True)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Findings]:
    """What was found for each page that is written, in order."""
    pages: list[Findings] = []

    def keep(findings: Findings) -> str:
        pages.append(findings)
        return findings_page(findings)

    monkeypatch.setattr(module, "findings_page", keep)
    return pages


def text_of(run: Path) -> str:
    return re.sub(r"<[^>]*>", " ", (run / "report.html").read_text())


def test_the_page_of_a_finished_run(small_pretraining: PretrainConfig, tmp_path: Path, found: list[Findings]) -> None:
    given = replace(small_pretraining, out=str(tmp_path), validation_clips=3, task="v3s-short", validation_videos=6)
    result = pretrain(given, console=QUIET)
    (page,) = found  # no epoch takes so long that there is another
    for name, head in page.heads.items():
        assert head.accuracy == pytest.approx(result.validation[f"accuracy_{name}"])
        assert head.confusion.sum() == 18
        assert head.num_groups == 6
    assert [line["epoch"] for line in page.metrics] == [1, 2]
    judged = [f"{line[0].upper()}{line[1:]}." for line in result.verdict]
    above = [line for line in page.sentences if "is above chance" in line]
    constant = [line for line in page.sentences if line.endswith("so its accuracy says nothing.")]
    assert page.sentences == [*above, *judged, *constant]
    assert len(constant) == sum(head.most_frequent_answer == 1 for head in page.heads.values())
    assert sum("not clearly above chance" in line for line in judged) + len(above) == 2
    assert (page.num_videos, page.num_still) == (6, 0)
    assert 1 <= len(page.wrong) <= 6
    assert [len(pair) for pair in page.neighbours] == [2] * 4
    html, text = (tmp_path / "report.html").read_text(), text_of(tmp_path)
    assert len(html) < 2e6
    assert all(sentence in text for sentence in page.sentences)
    for heading in ("Learning rate", "Waiting for data", "Training clips per second", "random weights", "best single"):
        assert heading in text
    assert "All listed videos are used." in text
    assert "All 6 validation videos show motion." in text
    assert not re.search(r"(src|href)=.(?!data:|#)", html)
    assert html.count('role="img"') == 8


def test_a_head_of_one_label_is_not_shown(pretrained: Path) -> None:
    assert "spatial head" not in text_of(pretrained)  # the task is ts


def test_while_it_trains_the_page_follows(
    small_pretraining: PretrainConfig,
    tmp_path: Path,
    found: list[Findings],
    monkeypatch: pytest.MonkeyPatch,
    killed_after: Callable[[int], AbstractContextManager[None]],
) -> None:
    """A kill in the second epoch leaves the page of the first; the resumed run shows both."""
    monkeypatch.setattr(running_page, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(running_page, "SHARE", 1e9)  # seconds per second
    given = replace(small_pretraining, out=str(tmp_path))
    with killed_after(5):
        pretrain(given, console=QUIET)
    (first,) = found
    assert (first.weights, first.neighbours, len(first.metrics)) == ("the last epoch", (), 1)
    accuracy = read_metrics(tmp_path / "metrics.jsonl")[0]["validation"]["accuracy_temporal"]
    assert first.heads["temporal"].accuracy == pytest.approx(accuracy)
    assert "after epoch 1 of 2" in text_of(tmp_path)
    assert "more --epochs" not in text_of(tmp_path), "it is not finished"
    pretrain(replace(given, resume=True), console=QUIET)
    assert [(len(page.metrics), page.weights) for page in found[1:]] == [(2, "the last epoch"), (2, "the kept weights")]
    pretrain(replace(given, resume=True), console=QUIET)
    assert len(found) == 4
    assert "after epoch 2 of 2" in text_of(tmp_path)


def test_a_stop_leaves_the_page_of_the_last_epoch_and_says_what_can_be_used(
    small_pretraining: PretrainConfig, tmp_path: Path, found: list[Findings], stop_at: Callable[[int], Callback]
) -> None:
    given, told = replace(small_pretraining, out=str(tmp_path)), io.StringIO()
    with pytest.raises(TrainingStoppedError):
        pretrain(given, callbacks=[stop_at(2)], console=Console(file=told, width=1000))
    assert not found
    resume = f"resume with: v3s pretrain --out {tmp_path} --resume"
    assert told.getvalue().splitlines()[-1] == (
        f"stopped in epoch 1 after step 2; no epoch has ended, so there are no weights to use yet; {resume}"
    )
    with pytest.raises(TrainingStoppedError):
        pretrain(replace(given, resume=True), callbacks=[stop_at(5)], console=Console(file=told, width=1000))
    assert [(len(page.metrics), page.weights) for page in found] == [(1, "the last epoch")]
    assert "after epoch 1 of 2" in text_of(tmp_path)
    assert told.getvalue().splitlines()[-1] == (
        f"stopped in epoch 2 after step 2; {tmp_path}/backbone.safetensors has the weights of epoch 1, which can be "
        f"used as they are; {resume}"
    )
    load_backbone(tmp_path / "backbone.safetensors")


def test_what_is_not_used_is_named(small_videos: Path, small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_clips(data, num_videos=12, num_frames=40, height=48, width=64)
    make_clips(data / "short", num_videos=8, num_frames=12, height=48, width=64)
    (data / "text.mp4").write_text("no video")
    given = replace(small_pretraining, data=str(data), out=str(out))
    pretrain(given, console=QUIET)
    entry = {"stream": "train 0", "path": "bounce/late.mp4", "stage": "decode", "reason": "a bad sector", "batch": 1}
    with (out / "quarantine.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
    pretrain(replace(given, resume=True), console=QUIET)
    text = " ".join(text_of(out).split())
    assert "8 videos too short: short/" in text
    assert "12 frames; the task needs" in text
    assert "| and 5 more." in text
    assert "1 video unreadable: text.mp4: is not a video" in text
    assert "1 video failed after the scan: bounce/late.mp4: a bad sector." in text


def test_still_videos_are_counted(small_pretraining: PretrainConfig, tmp_path: Path, found: list[Findings]) -> None:
    data = tmp_path / "data"
    make_clips(data, num_videos=8, num_frames=40, height=48, width=64)
    for number in range(8):
        picture = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        encode_mp4(data / f"still_{number}.mp4", [picture[None].repeat(40, 0)], 25)
    pretrain(replace(small_pretraining, data=str(data), out=str(tmp_path / "run"), validation_videos=8), console=QUIET)
    assert 0 < found[-1].num_still < found[-1].num_videos == 8
    assert f"{found[-1].num_still} of 8 validation videos" in text_of(tmp_path / "run")
    of_spans = " ".join(findings_page(replace(found[-1], noun="span")).split())  # with --segment
    assert f"{found[-1].num_still} of 8 validation spans" in of_spans
    assert "groups of spans" in of_spans
    assert "Random clips of training spans; the same clips of validation spans in every epoch" in of_spans
    assert "Spans that are not used" in of_spans


def test_a_clip_is_still_if_nothing_in_it_moves() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand((1, 3, 1, 32, 32), generator=generator).expand(1, 3, 8, 32, 32)
    noisy = picture + 0.006 * torch.randn((1, 3, 8, 32, 32), generator=generator)  # 1.5 levels of 255
    moving = picture.clone()
    moving[:, :, 4:, 8:12, 8:12] = 1 - moving[:, :, 4:, 8:12, 8:12].round()
    black = torch.zeros_like(picture)
    assert is_still(torch.cat([picture, noisy, moving, black])).tolist() == [
        True, True, False, True
    ]  # fmt: skip


def test_answers_are_those_of_the_newest_pass_in_the_order_of_the_clips() -> None:
    model = PretextModel(create_backbone("r3d", 0.125), TASKS["v3s"]).eval()
    clips = torch.rand((4, 3, 4, 16, 16), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[3, 1, 7], [0, 2, 2], [5, 5, 0], [1, 1, 9]])
    answers, plain = Answers(), pretext_objective(model, clips, labels)
    for terms in (answers(model, clips, labels), answers(model, clips, labels)):
        assert {name: value.item() for name, value in terms.items()} == pytest.approx(
            {name: value.item() for name, value in plain.items()}
        )
    taken = answers.take(Processes())
    assert taken.numbers.tolist() == [0, 2, 7, 9]
    assert taken.truth.tolist() == [[5, 5], [0, 2], [3, 1], [1, 1]]
    predicted = torch.stack([head.argmax(dim=1) for head in model(clips)], dim=1)
    assert taken.answers.tolist() == predicted[[2, 1, 0, 3]].tolist()
    answers(model, torch.zeros_like(clips), labels)
    assert not answers.take(Processes()).still.any(), "it is looked for in the first pass alone"
    assert not len(answers.take(Processes()).numbers)
    kept = KeptAnswers(2, 8, {"other": create_backbone("r3d", 0.125, seed=5).eval()})
    with torch.no_grad():
        kept(model, clips, labels)
    assert kept.gallery.numbers == [7, 2]  # 9 is a second clip of a video, and there is room for two
    assert {name: len(vectors) for name, vectors in kept.gallery.vectors.items()} == {kept.TRAINED: 2, "other": 2}
    assert kept.take(Processes()).answers.tolist() == taken.answers.tolist()


def test_neighbours_are_of_other_groups_and_the_nearest_first() -> None:
    angles = torch.tensor([0.0, 0.1, 0.5, 0.2, 3.0])
    gallery = Gallery(list(range(5)), {"one": list(torch.stack([angles.cos(), angles.sin()], dim=1))})
    assert gallery.nearest("one", 0, np.array([0, 0, 1, 2, 3]), 2) == [3, 2]


def test_a_picture_that_cannot_be_read_any_more_is_missing_alone(
    small_pretraining: PretrainConfig, tmp_path: Path, found: list[Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PretextClips.__getitem__

    def fail(self: PretextClips, key: tuple[int, int]) -> Any:
        if fails:
            raise VideoError("no such file")
        return read(self, key)

    def finish(self: module.RunReport, *values: Any) -> list[Any]:
        fails.append(True)
        return neighbours(self, *values)

    fails: list[bool] = []
    neighbours = module.RunReport._neighbours
    monkeypatch.setattr(PretextClips, "__getitem__", fail)
    monkeypatch.setattr(module.RunReport, "_neighbours", finish)
    pretrain(replace(small_pretraining, out=str(tmp_path), validation_videos=6), console=QUIET)
    assert (found[-1].wrong, list(found[-1].neighbours)) == ([], [[], [], [], []])
    assert (tmp_path / "report.html").is_file()


def test_short_videos_and_several_clips(
    small_pretraining: PretrainConfig, tmp_path: Path, found: list[Findings]
) -> None:
    """The video of a clip is drawn among those long enough for its label: 12 frames show a speed of 1 alone."""
    data = tmp_path / "data"
    make_clips(data, num_videos=12, num_frames=40, height=48, width=64)
    make_clips(data / "short", num_videos=8, num_frames=12, height=48, width=64)
    given = replace(small_pretraining, data=str(data), out=str(tmp_path / "run"), short="fit", validation_clips=4)
    pretrain(replace(given, validation_videos=8), console=QUIET)
    assert found[-1].heads["temporal"].confusion.sum() == 32
    assert found[-1].num_videos <= 8
    assert len(found[-1].wrong) >= 3
    for _, caption in found[-1].wrong:
        assert not caption.startswith("short/") or "temporal: speed 1," in caption


def test_writing_a_page_is_quick(pretrained: Path, small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    durations = []
    write = module.RunReport._write

    def timed(self: module.RunReport, *values: Any) -> None:
        start = time.process_time()
        write(self, *values)
        durations.append(time.process_time() - start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.RunReport, "_write", timed)
        pretrain(replace(small_pretraining, out=str(tmp_path), task="v3s-short"), console=QUIET)
    assert len(durations) == 1
    assert max(durations) < 2
