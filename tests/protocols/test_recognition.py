"""Action recognition: its clips, its model and its scores."""

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from v3s.backbones import create_backbone
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.views import View, read_clips
from v3s.protocols.finetune_page import recognition_page, recognition_table
from v3s.protocols.recognition import (
    Cut,
    LabelledClips,
    RecognitionModel,
    RecognitionResult,
    RecognitionScores,
    draw_cut,
    recognition_objective,
)
from v3s.recognizers.calibration import Calibration
from v3s.video.decode import read_frames
from v3s.video.warp import warp

VIEW = View(clip_frames=8, clip_size=32, num_clips=3)


@pytest.fixture(scope="module")
def table(labelled_videos: Path) -> IndexTable:
    return scan(list_videos(labelled_videos, subset="test"), min_frames=1).usable_table


def test_cuts_depend_only_on_the_key() -> None:
    key = {"seed": 3, "epoch": 2, "index": 5}
    assert draw_cut(90, **key, flip=True) == draw_cut(90, **key, flip=True)
    others = [{**key, name: 9} for name in key]
    assert len({draw_cut(90, **other, flip=True) for other in (key, *others)}) == 4


def test_cuts_cover_all_starts_and_the_whole_frame() -> None:
    cuts = [draw_cut(4, seed=0, epoch=0, index=index, flip=True) for index in range(500)]
    assert {cut.start for cut in cuts} == set(range(5))
    for positions in ([cut.left for cut in cuts], [cut.top for cut in cuts]):
        assert 0 <= min(positions) < 0.02
        assert 0.98 < max(positions) <= 1
    assert 200 < sum(cut.flip for cut in cuts) < 300
    assert not any(draw_cut(4, seed=0, epoch=0, index=index, flip=False).flip for index in range(50))


def test_training_clips_are_cut_as_drawn(table: IndexTable) -> None:
    clips = LabelledClips(table, torch.arange(8), VIEW, seed=1, flip=True)
    cut, source = clips.cut(2, 3), table[3]
    clip, label = clips[2, 3]
    to_clip = VIEW.to_clip(source.width, source.height, left=cut.left, top=cut.top, flip=cut.flip)
    expected = warp(read_frames(source, range(cut.start, cut.start + 8)), to_clip, 32, 32)
    assert torch.equal(clip, expected)
    assert (clip.shape, clip.dtype, label.item()) == ((3, 8, 32, 32), torch.uint8, 3)


def test_validation_clips_are_centre_clips_in_every_epoch(table: IndexTable) -> None:
    clips = LabelledClips(table, torch.arange(8), VIEW)
    assert clips.cut(0, 2) == clips.cut(7, 2) == Cut(start=6)
    centre = View(clip_frames=8, clip_size=32, num_clips=1)
    assert torch.equal(clips[0, 2][0], read_clips(table, 2, centre, centre.clips(20))[0])


def test_a_short_video_repeats_its_last_frame(table: IndexTable) -> None:
    view = View(clip_frames=24, clip_size=32)
    clip, _ = LabelledClips(table, torch.arange(8), view, seed=0)[0, 0]
    assert all(torch.equal(clip[:, 19], clip[:, later]) for later in range(20, 24))


def test_the_head_is_seeded_and_the_only_addition() -> None:
    before = torch.random.get_rng_state()
    backbone = create_backbone("r3d", 0.125, seed=0)
    first, again, other = (RecognitionModel(backbone, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    added = first.state_dict().keys() - {f"backbone.{name}" for name in backbone.state_dict()}
    assert added == {"classifier.weight", "classifier.bias"}
    assert not any(isinstance(module, nn.Dropout) for module in first.modules())


def test_objective_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    terms = recognition_objective(nn.Identity(), logits, torch.tensor([1, 0]))
    assert terms["loss"].item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)
    assert terms["accuracy"].item() == 0.5


def test_scores_count_unknown_classes_as_wrong() -> None:
    labels = torch.tensor([0, 1, 1, -1])
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0]])
    scores = RecognitionScores(("a", "b", "c"), labels, probabilities, torch.tensor([0, 1, 2, 2]))
    assert (scores.top_1, scores.top_5) == (0.5, None)
    assert scores.hits.tolist() == [1, 1, 0, 0]
    assert scores.standard_error == pytest.approx(
        (3 / 2 * (0.5**2 + 0.5**2 + 1**2)) ** 0.5 / 4
    )  # the last two together
    assert scores.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert scores.per_class == {"a": 1.0, "b": 0.5, "c": None}


def result_of(num_classes: int) -> RecognitionResult:
    calibration = Calibration(
        temperature=1.0, num_videos=3, loss_before=1.0, loss_after=1.0, error_before=0.0, error_after=0.0
    )
    scores = RecognitionScores(
        tuple("abcdef")[:num_classes], torch.tensor([0]), torch.ones(1, num_classes), torch.zeros(1)
    )
    return RecognitionResult(Path(), 1, {"accuracy": 0.5}, scores, 1 / num_classes, 0.5, calibration)


@pytest.mark.parametrize(("num_classes", "is_shown"), [(5, False), (6, True)])
def test_top_5_is_shown_where_it_says_something(num_classes: int, is_shown: bool) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(recognition_table(result_of(num_classes), "span"))
    assert isinstance(console.file, io.StringIO)
    assert ("test, top-5" in console.file.getvalue()) == is_shown
    assert "1 test span, weights of epoch 1" in console.file.getvalue()


def test_the_page_of_spans_calls_them_so() -> None:
    of_epoch = {"loss": 1.0, "accuracy": 0.5}
    metrics = [{"epoch": 1, "best_epoch": 1, "train": of_epoch, "validation": of_epoch}]
    html = recognition_page(
        result_of(2),
        metrics,
        name="run",
        num_epochs=1,
        num_clips=2,
        chance=0.5,
        keep="accuracy",
        sources={},
        noun="span",
    )
    assert "tested on 1 test span with 2 clips each" in " ".join(html.split())
    assert "no test spans" in html
    assert "video" not in html.partition("<main")[2].partition("</main>")[0]
