"""Audits: cues measure what they are named after, stimuli lack what they should, and conclusions match the scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from v3s import TASKS
from v3s.commands.audit import STIMULI, AuditConfig, Scores, Stimuli, audit, conclude, conclude_cues, draw_texture
from v3s.commands.pixel_cues import ALL_CUES, CUES, clip_cues, probe_cues
from v3s.commands.scores import HeadScores
from v3s.data.clips import VALIDATION_EPOCH, PretextClips
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.pretext.plan import Sampling

QUIET = Console(quiet=True)
SMALL = Sampling(clip_frames=8, clip_size=32, canvas_size=64)


def noise_clip(height: int = 24, width: int = 32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 5, height, width), dtype=np.uint8))


def textures(num_textures: int, height: int, width: int) -> Tensor:
    drawn = [draw_texture(np.random.default_rng(number), height, width) for number in range(num_textures)]
    return torch.stack(drawn).double()


# Cues


def test_gradients_follow_the_picture_when_it_is_turned() -> None:
    """Across and down change places, at every scale and in the halves."""
    clip = noise_clip()
    plain, turned = (clip_cues(shown)["gradients"].view(7, 2) for shown in (clip, clip.transpose(2, 3)))
    torch.testing.assert_close(turned[[0, 1, 2, 5, 6, 3, 4]].flip(1), plain)


def test_gradients_tell_stretched_from_plain() -> None:
    clip = noise_clip()
    stretched = clip.repeat_interleave(2, dim=3)  # twice as wide
    across, down = clip_cues(stretched)["gradients"].view(7, 2)[0]
    assert across < down - 0.5


def test_black_border_shows_in_its_own_line_only() -> None:
    clip = noise_clip()
    clip[:, :, -1] = 0
    shares = clip_cues(clip)["borders"].view(4, 4)[:, 3]
    assert shares[1] == 1
    assert (shares[[0, 2, 3]] < 0.1).all()


def test_motion_is_the_change_from_frame_to_frame() -> None:
    clip = noise_clip()
    motion = clip_cues(clip)["motion"]
    torch.testing.assert_close(clip_cues(clip.flip(1))["motion"], motion.flip(0))
    frozen = clip_cues(clip[:, :1].expand_as(clip))["motion"]
    assert (frozen < motion - 5).all()
    assert all(cues.isfinite().all() for cues in clip_cues(torch.zeros_like(clip)).values())


PARTS = np.arange(12), np.arange(12, 20)
"""Numbers of the videos to train on and to test on."""


def a_table(small_videos: Path) -> PretextClips:
    videos = scan(list_videos(small_videos, subset="all"), min_frames=1).usable_table
    return PretextClips(videos, TASKS["ts"], SMALL, seed=0)


def test_probe_finds_a_cue_that_is_there_and_none_that_is_not(small_videos: Path) -> None:
    clips, generator = a_table(small_videos), torch.Generator().manual_seed(0)
    labels = torch.randint(3, (600, 2), generator=generator) * torch.tensor([0, 1])
    cues = {name: torch.randn(600, 4, generator=generator) for name in CUES}
    cues["motion"][:, 2] += 4.0 * labels[:, 1]
    scores = probe_cues(clips, cues, labels, torch.arange(600) % 20, PARTS, torch.arange(20))
    assert scores["motion"][1].accuracy > 0.9
    assert scores[ALL_CUES][1].accuracy > 0.9
    assert scores["gradients"][1].accuracy < 1 / 3 + 4 * np.sqrt(2 / 9 / 240)
    assert scores["motion"][1].confusion.sum() == 240  # of the tested videos alone
    assert scores["motion"][0].accuracy == scores["motion"][0].chance == 1  # a head of one row


def test_probe_learns_nothing_from_the_videos_that_it_is_tested_on(small_videos: Path) -> None:
    """A cue that exists only in the tested videos is not found."""
    clips, generator = a_table(small_videos), torch.Generator().manual_seed(0)
    videos, labels = torch.arange(600) % 20, torch.randint(3, (600, 2), generator=generator) * torch.tensor([0, 1])
    cues = {name: torch.randn(600, 2, generator=generator) for name in CUES}
    tested = videos >= 12
    cues["borders"][tested, 0] = 10.0 * labels[tested, 1]
    found = probe_cues(clips, cues, labels, videos, PARTS, torch.arange(20))["borders"][1]
    assert found.accuracy < 0.6


# Stimuli


def test_texture_has_no_direction_no_seam_and_nothing_fine() -> None:
    texture = textures(12, 96, 128)[:, 0]
    across, down = (texture.diff(dim=axis).square().mean() for axis in (2, 1))
    assert across / down == pytest.approx(1, abs=0.15)
    seam = (texture[:, :, 0] - texture[:, :, -1]).square().mean()
    assert seam < 2 * across
    spectrum = torch.fft.rfft2(texture - texture.mean(dim=(1, 2), keepdim=True)).abs().square()
    frequency = torch.hypot(torch.fft.fftfreq(96)[:, None], torch.fft.rfftfreq(128))
    assert spectrum[:, frequency > 0.26].sum() < 0.01 * spectrum.sum()  # rounding and cut-off alone


def test_stimuli_lack_what_they_are_named_after(small_videos: Path) -> None:
    clips = a_table(small_videos)
    stimuli = Stimuli(clips)
    for number in range(3):
        key = (VALIDATION_EPOCH, number)
        shown, labels = stimuli[key]
        video, frozen, shuffled, still, moving = shown
        expected, expected_labels = clips[key]
        assert torch.equal(video, expected)
        assert torch.equal(labels, expected_labels)
        assert (frozen == video[:, :1]).all()
        order = [int((shuffled == video[:, t : t + 1]).all(dim=(0, 2, 3)).nonzero()[0]) for t in range(8)]
        assert sorted(order) == list(range(8))
        assert (still == still[:, :1]).all()
        assert (moving[:, 1:] != moving[:, :-1]).any(dim=(0, 2, 3)).all()
        assert torch.equal(moving[:, 0], still[:, 0])
        assert torch.equal(shown, stimuli[key][0])


# Words


def head(accuracy: float, chance: float = 0.1, clips: int = 1000) -> HeadScores:
    hits = round(accuracy * clips)
    rows = round(1 / chance)
    confusion = np.zeros((rows, rows), np.int64)
    for row in range(rows):  # every label is as frequent, and every answer
        confusion[row, row], confusion[row, (row + 1) % rows] = hits // rows, (clips - hits) // rows
    error = float(np.sqrt(accuracy * (1 - accuracy) / clips))
    return HeadScores(tuple(map(str, range(rows))), confusion, error, 100, chance)


def scores(spatial: list[float], temporal: list[float]) -> dict[str, Scores]:
    return {name: (head(a), head(b)) for name, a, b in zip(STIMULI, spatial, temporal, strict=True)}


CHANCE = [0.1] * 5
RIGHT = [0.8, 0.1, 0.1, 0.1, 0.1]


def test_as_high_on_noise_as_on_video_is_called_a_shortcut() -> None:
    sentences = conclude(scores([0.6, 0.6, 0.6, 0.61, 0.4], RIGHT))
    assert "it scores as high there, so it relies on texture, a shortcut" in sentences[0]
    assert "60% of its lead over chance remains" in sentences[1]
    assert all("shortcut" not in line for line in sentences[2:])


def test_network_without_shortcuts_relies_on_none() -> None:
    sentences = conclude(scores(RIGHT, RIGHT))
    assert len(sentences) == 4
    assert all(line.endswith("it does not rely on that") for line in sentences)


def test_network_at_chance_has_learned_nothing() -> None:
    sentences = conclude(scores(CHANCE, CHANCE))
    assert len(sentences) == 2
    assert all("with 100 independent samples: no sign that it has learned anything" in line for line in sentences)


def test_what_is_not_significant_is_not_said() -> None:
    """Somewhat above chance on noise, and not certainly below video: neither a shortcut nor the absence of one."""
    spatial = [0.15, 0.1, 0.1, 0.12, 0.12]
    assert all(line.startswith("temporal") for line in conclude(scores(spatial, RIGHT)))


def test_one_answer_to_everything_is_said_and_nothing_else() -> None:
    """Also where it happens to be the most frequent label: 18 % where chance is 10."""
    constant = head(0.1)
    constant.confusion[:] = 0
    constant.confusion[:, 3] = (91, 91, 91, 180, 91, 91, 91, 91, 91, 92)
    rows = dict.fromkeys(STIMULI, (constant, constant))
    assert constant.accuracy == 0.18
    assert not constant.is_above_chance
    assert conclude(rows) == [
        f"{name} head: answers '3' to everything, so its accuracy says nothing" for name in ("spatial", "temporal")
    ]


@pytest.mark.parametrize("name", ["frozen", "still noise"])
def test_temporal_label_read_from_what_does_not_move_is_a_leak(name: str) -> None:
    temporal = [0.3 if stimulus == name else share for stimulus, share in zip(STIMULI, RIGHT, strict=True)]
    (leak,) = [line for line in conclude(scores(RIGHT, temporal)) if "leaks" in line]
    assert f"30.0% ± 1.4% on {name}" in leak


def test_the_statistics_of_clips_are_put_in_words() -> None:
    """What all of them give away with each setting; nothing is claimed where it is not significant."""
    rows = {
        "paper: motion": (head(0.9), head(0.9)), "paper: all three": (head(0.3), head(0.1)),
        "even: all three": (head(0.11), head(0.11)),
    }  # fmt: skip
    spatial, temporal = conclude_cues(rows)
    assert "30.0% ± 1.4% (paper), 11.0% ± 1.0% (even) of them, chance is 10.0%: with paper, a network can" in spatial
    assert temporal.endswith("no sign of a shortcut in 100 independent samples")


# Whole audits


def test_audit_of_clips(small_videos: Path, tmp_path: Path) -> None:
    config = AuditConfig(
        data=str(small_videos), task="ts", clip_frames=8, clip_size=32, clips=3, workers=0, trim_bars=True,
        out=str(tmp_path / "audit.json"), page=str(tmp_path / "audit.html"),
    )  # fmt: skip
    found = audit(config, console=QUIET)
    names = {f"{zoom}: {cue}" for zoom in ("paper", "even", "v3s-plus") for cue in (*CUES, ALL_CUES)}
    assert set(found.rows) == names  # no more: none of these videos has bars
    temporal, bars = found.conclusions  # the spatial head has one label
    assert temporal.startswith(f"temporal labels: the statistics give {found.rows['paper: all three'][1].accuracy:.1%}")
    assert bars == "videos with bars: 0 of 16"
    assert f"<p>T{temporal[1:]}.</p>" in (tmp_path / "audit.html").read_text()
    assert {pair[1].confusion.sum() for pair in found.rows.values()} == {15}  # 3 clips of a third of 16 videos
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["rows"]["even: motion"]["temporal"]["accuracy"] == found.rows["even: motion"][1].accuracy
    assert "<svg" in (tmp_path / "audit.html").read_text()
    assert audit(config, console=QUIET).to_json() == found.to_json()


def test_audit_of_a_network(small_videos: Path, pretrained: Path, tmp_path: Path) -> None:
    config = AuditConfig(
        data=str(small_videos), backbone=str(pretrained), clips=2, workers=0, out=str(tmp_path / "audit.json"),
        page=str(tmp_path / "audit.html"),
    )  # fmt: skip
    found = audit(config, console=QUIET)
    assert tuple(found.rows) == STIMULI
    assert {pair[1].confusion.sum() for pair in found.rows.values()} == {32}
    assert json.loads((tmp_path / "audit.json").read_text())["conclusions"] == found.conclusions
    assert (tmp_path / "audit.html").read_text().count("<video") == len(STIMULI)


def test_one_video_is_too_few(small_videos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "one.txt"
    listed.write_text(f"{next(small_videos.rglob('*.mp4'))}\n")
    with pytest.raises(ValueError, match=r"needs 2 usable videos, .*one\.txt has 1"):
        audit(AuditConfig(data=str(listed), task="ts", clip_frames=8, workers=0), console=QUIET)
