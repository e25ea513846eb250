"""``v3s predict``: name what videos, or segments of recordings, show."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from rich.console import Console

from v3s.backbones.device import ComputeOptions, choose_compute, divide_cores
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoOptions
from v3s.data.usable import report_padded, usable_videos
from v3s.data.views import asked_of
from v3s.files.text import counted, print_table, say, short_repr, text_table, verb
from v3s.options import require_files, require_positive
from v3s.recognizers.classifier import Classifier, load_classifier
from v3s.recognizers.of_vectors import predict_vectors
from v3s.recognizers.predictions import (
    Prediction,
    Tally,
    most_probable,
    number_of_classes,
    write_predictions,
)
from v3s.recognizers.recognizer import open_recognizer
from v3s.vectors.collection import open_vectors
from v3s.video.span import times_of

_NUM_CLASSES = 3  # named for each span
_NUM_LISTED = 20  # classes in the table
_OF_VIDEOS = (
    *("splits", "split", "subset", "allow_missing"),
    *("segment", "segment_stride", "fps", "window", "mask", "num_clips"),
)
"""Options that say which videos are read, and how."""
_NOT_CALIBRATED = "none, since there were too few videos, or an earlier version wrote the recognizer"


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ComputeOptions, VideoOptions):
    """Name what videos show, or segments of recordings (--segment), with a recognizer of v3s finetune or v3s probe.

    Attributes:
        data: A folder of videos (subfolders included), a video, a list file with one path per line, or a store from v3s
            prepare.
        vectors: Folder of vectors from v3s embed, in place of DATA, for a recognizer of v3s probe. Each vector gets one
            prediction.
        recognizer: Folder of a run of v3s finetune, or the one that v3s probe saved (--save).
        out: CSV file for the predictions, one for each video or span; JSON lines if its name ends in .jsonl. Other
            answers that are there are kept under another name.
        events: CSV file (or .jsonl) for events: consecutive spans of a file with the same class, joined.
        k: Classes to name for each span, the most probable first. Default: 3, or all if there are fewer.

    More options:
        segment: Cut every video, or every span of a list, into segments of this many seconds, and answer for each. What
            remains at the end is a segment if it is at least half as long; a shorter video is one segment. Default:
            the length of the spans that the recognizer learned from (the median); if it learned from whole videos, one
            answer for each video or span of the list.
        subset: Part of the split.
        unsure_below: Mark a prediction as unsure if its probability is smaller; with two classes, give more than 0.5.
        fps: Frames per second at which videos are sampled, as those that the recognizer was trained on. Default: its
            own rate, else every frame of the file.
        num_clips: Clips per video or span, evenly spaced. Default: as many as the recognizer was tested with.
    """

    data: Annotated[str, "DATA"] = ""
    vectors: Annotated[str | None, "--in"] = None
    recognizer: str
    out: str
    events: str | None = None
    k: int | None = None
    subset: Subset = "all"
    unsure_below: float = 0.5
    num_clips: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "k", "num_clips")
        require_files(self, out=".csv .jsonl", events=".csv .jsonl")
        if not 0 <= self.unsure_below <= 1:
            raise ValueError(f"unsure_below is {self.unsure_below}; it must be a probability, from 0 to 1")
        if bool(self.data) == (self.vectors is not None):
            raise ValueError("give either DATA, the videos, or --in, a folder of their vectors")
        defaults = {field.name: field.default for field in fields(self)}
        cutting = [name for name in _OF_VIDEOS if self.vectors is not None and getattr(self, name) != defaults[name]]
        if cutting:
            value = getattr(self, cutting[0])
            raise ValueError(f"{cutting[0]} is {value}, but vectors are listed and cut already; omit it with --in")


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was predicted, and for what.

    Attributes:
        num_spans: number of videos or spans with a prediction.
        num_unsure: those of them whose probability is below the threshold.
        num_events: number of events that consecutive spans make.
        by_class: how many spans each class was predicted for, the most frequent first.
        left_out: path and reason of each skipped video.
    """

    num_spans: int
    num_unsure: int
    num_events: int
    by_class: dict[str, int]
    left_out: dict[str, str]
    __repr__ = short_repr


def predict(config: PredictConfig, *, console: Console | None = None) -> Predicted:
    """Write the most probable classes of videos, spans or vectors.

    Args:
        config: which recognizer, which videos or vectors, which files.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the folder contains no recognizer, no video is usable, the vectors are of another network, or more
            classes were asked for than there are.
    """
    console = console or Console()
    classifier = load_classifier(config.recognizer)
    k = number_of_classes(config.k, classifier.classes, _NUM_CLASSES)
    left_out: dict[str, str] = {}
    if config.vectors is not None:
        vectors = open_vectors(config.vectors)
        left_out |= vectors.description.left_out
        noun, predictions = "vector", predict_vectors(classifier, vectors, k)
    else:
        noun, predictions = _of_videos(config, classifier, k, left_out, console)
    events = None if config.events is None else Path(config.events)
    tally = write_predictions(Path(config.out), events, predictions, k=k, unsure_below=config.unsure_below)
    _report(config, classifier, tally, noun, left_out, console)
    by_class = dict(tally.by_class.most_common())
    return Predicted(tally.num_spans, tally.num_unsure, tally.num_events, by_class, left_out)


def _of_videos(
    config: PredictConfig, classifier: Classifier, k: int, left_out: dict[str, str], console: Console
) -> tuple[str, Iterator[Prediction]]:
    """Read the list and all its files, then predict as the predictions are taken; also returns what they are for."""
    seen = classifier.space.view
    for name, (asked, own) in asked_of(seen, config).items():
        if asked != own and (name == "mask" or getattr(seen, name) is not None):
            given = getattr(config, name)
            raise ValueError(
                f"{name} is {given}, but the recognizer was trained with {name} {own}; omit --{name}, or, if a store "
                "brought it, give another store"
            )
    compute = choose_compute(config.device, config.precision)
    num_workers = divide_cores(config.workers, compute.device)
    recognizer = open_recognizer(config.recognizer, compute, num_clips=config.num_clips, num_workers=num_workers)
    listed, seconds = config.list_videos(seen), classifier.recognition.span_seconds
    if seconds is not None and config.segment is None and not listed.bounds:
        say(
            console,
            f"the recognizer learned from spans of {seconds:g} s, so videos are cut into spans of this length; "
            "--segment changes it",
        )
        listed = replace(listed, spans=replace(listed.spans, segment=seconds))
    scan = usable_videos(listed, min_frames=1, console=console, workers=config.workers)
    left_out |= scan.skipped
    table, view = scan.usable_table, recognizer.encoder.view
    report_padded({f"{scan.videos.noun}s": table}, view, console)
    paths = (scan.videos.paths[position] for position in scan.usable)
    rows = (row[None] for row in recognizer.probabilities(table, console=console, what="predicting"))
    best = most_probable(rows, recognizer.classes, k)
    predictions = (
        Prediction(path, *times_of(table[number]), *answer)
        for number, (path, answer) in enumerate(zip(paths, best, strict=True))
    )
    return scan.videos.noun, predictions


def _unsure(number: int, noun: str, num_classes: int, threshold: float) -> str:
    """How many of them are unsure; or that none can be, since the most probable class has at least an equal share."""
    if threshold * num_classes > 1:
        return f"{counted(number, noun)} {verb(number, 'are')} unsure: the probability is below {threshold:g}"
    return (
        f"none can be unsure: of {counted(num_classes, 'class')} the most probable has {1 / num_classes:.2g} or more; "
        f"give a larger --unsure-below than {threshold:g}"
    )


def _report(
    config: PredictConfig, classifier: Classifier, tally: Tally, noun: str, left_out: dict[str, str], console: Console
) -> None:
    shown = tally.by_class.most_common(_NUM_LISTED)
    rows = [(name, f"{number:,}", f"{number / tally.num_spans:.1%}") for name, number in shown]
    say(console, *(f"other answers were there before; they are now {path}" for path in tally.kept))
    print_table(console, text_table("", ("class", f"{noun}s", "share"), rows))
    if num_more := len(tally.by_class) - len(shown):
        say(console, f"and {counted(num_more, 'more class')} in {config.out}")
    say(
        console,
        counted(tally.num_spans, noun)
        + (f", {counted(tally.num_events, 'event')}; " if config.events else "; ")
        + _unsure(tally.num_unsure, noun, len(classifier.classes), config.unsure_below)
        + (f"; skipped: {len(left_out):,}" if left_out else ""),
        f"calibration: {classifier.recognition.calibration or _NOT_CALIBRATED}",
    )
