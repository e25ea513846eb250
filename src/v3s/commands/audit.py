"""``v3s audit``: how much of each label can be read without looking at what a video shows.

Without a network: a linear probe on a few statistics of each clip (`v3s.commands.pixel_cues`). With a trained network:
both heads on real videos, and on clips without objects, without change or without order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import default_collate

from v3s.backbones.device import ComputeOptions, choose_compute, divide_cores
from v3s.commands.pixel_cues import ALL_CUES, CueClips, probe_cues
from v3s.commands.recipes import RECIPES
from v3s.commands.scores import HeadScores, one_answer_sentence, predict_labels, score_heads
from v3s.data.clips import PretextClips, SampleKey, validation_batches
from v3s.data.groups import GroupOptions, hold_out_rows, number_groups
from v3s.data.lists.splits import VideoOptions
from v3s.data.loading import load
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.data.views import View
from v3s.features.saved import load_pretext_model
from v3s.files.text import counted, print_table, say, share_text, short_repr, text_table
from v3s.files.writing import write_json
from v3s.options import require_files, require_positive
from v3s.pages.charts import bar_chart
from v3s.pages.images import data_uri, mp4
from v3s.pages.masked import Masked, masked_of
from v3s.pages.templates import render, write_page
from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import ClipOptions, Sampling
from v3s.pretext.task import PretextTask, get_task
from v3s.protocols.errors import critical_value
from v3s.train.contents import seen_sentence
from v3s.video.decode import read_frames

_TEST_SHARE = 1 / 3  # of the videos, for the probe
_HEADS = ("spatial", "temporal")
STIMULI = ("video", "frozen", "shuffled", "still noise", "moving noise")
_SHORTEST_WAVE = 4  # pixels: as in compressed video, there is no finer noise
_FASTEST = 3  # pixels per frame: the maximum drift of moving noise in x and in y
_STIMULUS = 4  # keeps these random draws separate from those of the samples
Scores = tuple[HeadScores, HeadScores]


@dataclass(frozen=True, kw_only=True)
class AuditConfig(ComputeOptions, ClipOptions, GroupOptions, VideoOptions):
    """Measure how much of each label can be read without looking at what a video shows.

    With --backbone, the heads of that run classify real clips and clips without content (noise, frozen and shuffled
    frames); the task and the clip options are those of the run. Without it, a linear probe classifies gradients,
    borders and motion of the clips, for both zooms and for the recipe v3s-plus; with --trim-bars, each setting is
    repeated without letterbox bars.

    Attributes:
        backbone: Folder of a run; choose videos that it was not trained on (with split lists, --subset test).
        task: The pretext task, as for v3s pretrain.
        out: JSON file for the scores.
        page: HTML page with tables and charts; with --backbone the clips that the network was shown, with --mask what
            it takes away.

    More options:
        clips: Clips per video; the seed determines which.
        batch_size: Clips per batch.
    """

    backbone: str | None = None
    task: str = "v3s"
    clips: int = 4
    batch_size: int = 16
    out: str | None = None
    page: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clips", "batch_size")
        self.check_clips()
        require_files(self, out=".json", page=".html")
        if self.short != "leave-out":
            raise ValueError(f"short is {self.short!r}; an audit skips short videos, so it must be leave-out")


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        title: a description of what was audited.
        rows: the scores of both heads by name: a setting and a cue, or a stimulus.
        conclusions: what follows from the scores, one sentence each; the terminal, the page and the file show them.
        shown: an example of each stimulus, uint8, shape (stimuli, 3, T, size, size); None without a network.
        masked: what a mask takes away, for the page; None without a mask.
    """

    title: str
    rows: dict[str, Scores]
    conclusions: list[str]
    shown: Tensor | None = None
    masked: Masked | None = None
    __repr__ = short_repr

    def to_json(self) -> dict[str, Any]:
        """Everything except the pictures, as plain values."""
        rows = {
            name: {
                head: {name: value for name, value in score.to_json().items() if name not in ("labels", "confusion")}
                for head, score in zip(_HEADS, scores, strict=True)
            }
            for name, scores in self.rows.items()
        }
        return {"title": self.title, "rows": rows, "conclusions": self.conclusions}


def audit(config: AuditConfig, *, console: Console | None = None) -> Audit:
    """Audit the clips of a task or, with ``backbone``, a trained network.

    Args:
        config: which videos; how clips are cut, or which network.
        console: where to print; the terminal by default.

    Raises:
        CheckpointError: the folder does not contain a trained model with both heads.
        ValueError: the videos cannot be listed, or too few of them are usable.
    """
    console = console or Console()
    result = _audit_clips(config, console) if config.backbone is None else _audit_network(config, console)
    print_table(console, _terminal_table(result))
    for sentence in result.conclusions:
        say(console, sentence)
    if config.out is not None:
        write_json(Path(config.out), {"data": config.data, "backbone": config.backbone, **result.to_json()})
    if config.page is not None:
        write_page(config.page, _page(result))
    return result


# Without a network


def _audit_clips(config: AuditConfig, console: Console) -> Audit:
    """Probe the cues of the same clips with both zooms and the recipe v3s-plus, and if asked, without bars."""
    task = get_task(config.task)
    scanned = _usable(config, task, config.sampling(), console)
    videos, groups = scanned.usable_table, config.groups_of(scanned)
    base = PretextClips(videos, task, config.sampling(), seed=config.seed).balanced(config.clips * len(videos))
    settings = _settings(base)
    batches = validation_batches(len(videos), config.clips, config.batch_size)
    clips = list(settings.values())
    workers = divide_cores(config.workers, torch.device("cpu"))
    read = load(CueClips(clips), batches, num_workers=workers, quarantine=None, collate=default_collate)
    cues, labels, numbers = _collect(read)
    num_tested = max(1, round(_TEST_SHARE * len(videos)))
    trained, tested = hold_out_rows(videos, num_tested, config.seed, groups)
    rows = {}
    for place, name in enumerate(settings):
        own = {cue: values[:, place] for cue, values in cues.items()}
        found = probe_cues(clips[place], own, labels, numbers, (trained, tested), torch.from_numpy(groups))
        for cue, scores in found.items():
            rows[f"{name}: {cue}"] = scores
    shown = _of_videos(config.clips * len(tested), groups[tested])
    title = f"Linear probe on a few statistics of each clip: {shown}"
    conclusions = conclude_cues(rows)
    if config.trim_bars:
        conclusions.append(f"videos with bars: {base.num_with_bars:,} of {len(videos):,}")
    others = counted(len(trained), "other video")
    masked = masked_of(videos) if config.page else None
    return Audit(f"{title}, trained on {others}", rows, conclusions, masked=masked)


def conclude_cues(rows: Mapping[str, Scores]) -> list[str]:
    """State how much of each label the cues together give away, for every setting, one sentence for each head."""
    sentences = []
    for place, head in enumerate(_HEADS):
        ends = f": {ALL_CUES}"
        scores = {name.removesuffix(ends): pair[place] for name, pair in rows.items() if name.endswith(ends)}
        first = next(iter(scores.values()))
        if len(first.labels) == 1:
            continue
        figures = ", ".join(f"{_percent(score)} ({name})" for name, score in scores.items())
        leaking = [name for name, score in scores.items() if score.is_above_chance]
        start = f"{head} labels: the statistics give {figures} of them, chance is {first.chance:.1%}"
        if leaking:
            found = f"with {', '.join(leaking)}, a network can score above chance without looking at what a video shows"
        else:
            found = f"no sign of a shortcut in {counted(first.num_groups, 'independent sample')}"
        sentences.append(f"{start}: {found}")
    return sentences


def _of_videos(num_clips: int, groups: np.ndarray) -> str:
    """How many clips of how many videos, given the group of each video, and of how many groups."""
    text = f"{counted(num_clips, 'clip')} of {counted(len(groups), 'video')}"
    num_groups = len(np.unique(groups))
    return text if num_groups == len(groups) else f"{text} in {counted(num_groups, 'group')}"


def _settings(clips: PretextClips) -> dict[str, PretextClips]:
    """The same clips with both zooms and the recipe v3s-plus; if some have bars, both with and without them."""
    recipes: dict[str, dict[str, Any]] = {"paper": {"zoom": "paper"}, "even": {"zoom": "even"}}
    recipes["v3s-plus"] = RECIPES["v3s-plus"]
    trims = {"": False, ", bars trimmed": True} if clips.num_with_bars else {"": False}
    return {
        f"{name}{suffix}": clips.cut_by(replace(clips.sampling, trim_bars=trim, **recipe))
        for suffix, trim in trims.items()
        for name, recipe in recipes.items()
    }


def _collect(loader: Any) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """All batches as one: cues by kind (N, settings, numbers), labels (N, 2), videos (N,)."""
    cues, labels, videos = zip(*(data for _, data in loader), strict=True)
    return {name: torch.cat([batch[name] for batch in cues]) for name in cues[0]}, torch.cat(labels), torch.cat(videos)


# With a network


class Stimuli:
    """Each sample as video and in four variants that remove something: uint8 (stimuli, 3, T, size, size), and labels.

    frozen: the first frame is repeated; shuffled: the frames are in random order; still noise: the map of the sample is
    applied to an isotropic texture; moving noise: to such a texture that drifts at a random speed.
    """

    def __init__(self, clips: PretextClips) -> None:
        self.clips = clips

    def path(self, key: SampleKey) -> str:
        """The file of a sample."""
        return self.clips.path(key)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        video, plan = self.clips.plan(*key)
        source, size = self.clips.table[video], self.clips.sampling.clip_size
        generator = np.random.default_rng((self.clips.seed, *key, _STIMULUS))
        clip = cut_clip(read_frames(source, plan.frames), plan, size)
        texture = draw_texture(generator, source.height, source.width)
        speed = generator.uniform(-_FASTEST, _FASTEST, size=2)
        places = np.outer(np.array(plan.frames) - plan.frames[0], speed).round().astype(int)
        drifting = torch.stack([texture.roll((down, across), dims=(1, 2)) for down, across in places.tolist()])
        frozen = clip[:, :1].expand_as(clip)
        shuffled = clip[:, generator.permutation(clip.shape[1])]
        still = cut_clip(texture[None], plan, size).expand_as(clip)
        shown = torch.stack([clip, frozen, shuffled, still, cut_clip(drifting, plan, size)])
        return shown, torch.tensor([plan.labels.spatial, plan.labels.temporal])


def draw_texture(generator: np.random.Generator, height: int, width: int) -> Tensor:
    """Isotropic grey noise whose amplitude falls as 1/f, as in natural images, uint8 (3, H, W).

    It wraps around at its borders and has no wave shorter than `_SHORTEST_WAVE` pixels.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.divide(1, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    amplitude[frequency > 1 / _SHORTEST_WAVE] = 0
    texture = np.fft.irfft2(np.fft.rfft2(generator.normal(size=(height, width))) * amplitude, s=(height, width))
    texture = 128 + 40 * texture / texture.std()
    return torch.from_numpy(texture.clip(0, 255).round().astype(np.uint8)).expand(3, height, width)


def _audit_network(config: AuditConfig, console: Console) -> Audit:
    """Run both heads of a trained network on every stimulus; all stimuli are made from the same plans."""
    assert config.backbone is not None
    compute = choose_compute(config.device, config.precision)
    model, trained = load_pretext_model(config.backbone)
    scanned = _usable(config, trained.task, trained.sampling, console, trained.view)
    videos, groups = scanned.usable_table, config.groups_of(scanned)
    clips = PretextClips(videos, trained.task, trained.sampling, seed=config.seed)
    stimuli = Stimuli(clips.balanced(config.clips * len(videos)))
    batches = validation_batches(len(videos), config.clips, config.batch_size)
    workers = divide_cores(config.workers, compute.device)
    loader = load(stimuli, batches, num_workers=workers, quarantine=None)
    shown = ((variants.flatten(0, 1), labels) for _, (variants, labels) in loader)
    predictions, truth = predict_labels(model, shown, compute)
    predictions = predictions.reshape(len(truth), len(STIMULI), 2)
    of_clips = groups[np.arange(len(truth)) % len(videos)]
    rows = {
        name: score_heads(trained.task, trained.sampling.label_prior, truth, predictions[:, place], of_clips)
        for place, name in enumerate(STIMULI)
    }
    title = f"{config.backbone}: both heads on {_of_videos(len(truth), groups)}"
    conclusions, masked = conclude(rows), masked_of(videos) if config.page else None
    if sentence := seen_sentence(Path(config.backbone), videos, scanned.videos.noun):
        conclusions.append(sentence)
    return Audit(title, rows, conclusions, stimuli[batches[0][0]][0], masked)


def conclude(rows: Mapping[str, Scores]) -> list[str]:
    """State what both heads rely on, from their scores on every stimulus, as far as the number of groups allows."""
    spatial, temporal = ({name: scores[head] for name, scores in rows.items()} for head in (0, 1))
    sentences = []
    if len(spatial["video"].labels) > 1:
        for name in ("still noise", "moving noise"):
            sentences += _compare("spatial", spatial, name, "texture, a shortcut: nothing was recognised")
    if len(temporal["video"].labels) > 1:
        for name in ("frozen", "still noise"):
            if temporal[name].is_above_chance:
                score = f"{_percent(temporal[name])} on {name}"
                sentences.append(f"temporal head: {score}: something other than time leaks the label")
        sentences += _compare("temporal", temporal, "moving noise", "the speed of the pixels, whatever moves")
        sentences += _compare("temporal", temporal, "shuffled", "how much frames differ, not their order")
    return list(dict.fromkeys(sentences))


def _compare(head: str, scores: Mapping[str, HeadScores], name: str, what: str) -> list[str]:
    """One sentence that compares a head on video and on a stimulus that has lost something."""
    real, other = scores["video"], scores[name]
    if real.one_answer is not None:
        return [one_answer_sentence(head, real)]
    if not real.is_above_chance:
        of = counted(real.num_groups, "independent sample")
        shown = f"{head} head: {_percent(real)} on video, not significantly above chance ({real.chance:.1%}), with {of}"
        return [f"{shown}: no sign that it has learned anything"]
    start = f"{head} head: {_percent(real)} on video, {_percent(other)} on {name}"
    certain = critical_value(real.num_groups) * hypot(real.standard_error, other.standard_error)
    is_lower = real.accuracy > other.accuracy + certain
    if not other.is_above_chance:
        return [f"{start}, not above chance ({other.chance:.1%}): it does not rely on that"] if is_lower else []
    if not is_lower:
        return [f"{start}: it scores as high there, so it relies on {what}"]
    kept = (other.accuracy - other.chance) / (real.accuracy - real.chance)
    return [f"{start}: {kept:.0%} of its lead over chance remains; that part relies on {what}"]


# Output


def _percent(score: HeadScores) -> str:
    return share_text(score.accuracy, score.standard_error)


def _cells(result: Audit) -> list[tuple[str, ...]]:
    return [(name, *(text for score in scores for text in _texts(score))) for name, scores in result.rows.items()]


def _texts(score: HeadScores) -> tuple[str, str, str]:
    return _percent(score), f"{score.chance:.1%}", f"{score.most_frequent_answer:.1%}"


_OF_A_HEAD = ("chance", "most frequent answer")
_HEADER = ("shown", "spatial head", *_OF_A_HEAD, "temporal head", *_OF_A_HEAD)


def _terminal_table(result: Audit) -> Table:
    return text_table(result.title, _HEADER, _cells(result))


def _page(result: Audit) -> str:
    charts, films = [], []
    for place, head in enumerate(_HEADS):
        scores = {name: pair[place] for name, pair in result.rows.items()}
        first = next(iter(scores.values()))
        if len(first.labels) > 1:
            values = {name: round(100 * score.accuracy, 1) for name, score in scores.items()}
            title, tested = f"Accuracy of the {head} head, %", counted(int(first.confusion.sum()), "clip")
            charts.append((bar_chart(values, title=title, reference=100 * first.chance, note="chance"), tested))
    if result.shown is not None:
        clips = result.shown.permute(0, 2, 3, 4, 1)
        films = [(data_uri(mp4(clip, 8), "video/mp4"), name) for name, clip in zip(STIMULI, clips, strict=True)]
    return render("audit.html", result=result, charts=charts, scores=(_HEADER, _cells(result)), films=films)


def _usable(
    config: AuditConfig, task: PretextTask, sampling: Sampling, console: Console, view: View | None = None
) -> Scan:
    listed = config.list_videos(view)
    number_groups(listed.paths, config.group)  # fails before the videos are read
    needed = task.longest_span(sampling.clip_frames, sampling.seam)
    scanned = usable_videos(listed, min_frames=needed, console=console, workers=config.workers)
    if scanned.num_usable < 2:
        raise ValueError(f"an audit needs 2 usable videos, to train on some and test on others; {config.data} has 1")
    return scanned
