"""``v3s explain``: which regions and frames of a clip a prediction is based on (paper section 4.6, Figure 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones.device import Compute, DeviceOptions, choose_compute
from v3s.backbones.stages import check_stage
from v3s.data.letterbox import untransformed
from v3s.data.views import View
from v3s.features.encoder import Feature
from v3s.features.saved import describe_trained, load_backbone, load_pretext_model
from v3s.files.own import require_own
from v3s.files.text import say
from v3s.files.times import parse_time, time_text
from v3s.files.weights import fingerprint
from v3s.files.writing import CheckpointError, json_as_bytes, write_files
from v3s.options import closest, require_folders
from v3s.pages.images import data_uri, gif, mp4, png
from v3s.pages.templates import render
from v3s.protocols.gradcam import contact_sheet, grad_cam, overlay
from v3s.recognizers.classifier import load_classifier
from v3s.video.decode import Video, read_frames
from v3s.video.homography import Homography
from v3s.video.index import index_video
from v3s.video.span import Span, nearest_frame, time_of_frame
from v3s.video.warp import warp

_MAX_PREDICTIONS = 10  # on the page
_MAX_NAMED = 20  # classes in a message


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(DeviceOptions):
    """Show where a network looks (Grad-CAM; paper section 4.6, Figure 5).

    Attributes:
        video: The video.
        backbone: Folder of a run of v3s pretrain (spatial and temporal heads) or v3s finetune (recognition).
        target: Name or number of the class to explain. Default: the predicted class.
        out: Folder for the overlay (MP4 and GIF) and the contact sheet (PNG).

    More options:
        head: Head to explain. Default: recognition for a fine-tuned network, temporal for a pre-trained one.
        stage: Stage of the backbone whose activations are shown; conv4 is finer in time and space than conv5.
        start: When the clip starts: seconds, m:ss or h:mm:ss. Default: the clip in the middle of the video.
    """

    video: Annotated[str, "VIDEO"]
    backbone: str
    head: Literal["spatial", "temporal", "recognition"] | None = None
    target: str | None = None
    stage: str = "conv5"
    start: str | None = None
    out: str = "explain"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_folders(self, "out")
        if self.start is not None:
            parse_time(self.start, "start")


@dataclass(frozen=True, slots=True)
class ExplainedHead:
    """A fully connected layer on the backbone's features, and the classes of its outputs."""

    layer: nn.Module
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to explain.

    Attributes:
        backbone: in evaluation mode.
        heads: by name; the first is the default.
        view: length and size of the network's clips.
        to_clip: the map from a video's frames to a clip; pretext heads see the scale that they were trained on.
        compute: device and precision.
    """

    backbone: nn.Module
    heads: dict[str, ExplainedHead]
    view: View
    to_clip: Callable[[Video], Homography]
    compute: Compute


@dataclass(frozen=True, slots=True)
class Explanation:
    """The heat map of one prediction.

    Attributes:
        head: name of the head.
        stage: name of the stage whose activations were used.
        places: the stage's size in time, height and width, which is the resolution of the heat map.
        classes: names of the head's outputs.
        probabilities: of each class.
        target: number of the explained class.
        frames: the file's frame numbers of the clip; the last one repeats if the video is too short.
        seconds: when its first and its last frame are shown.
        clip: uint8, shape (T, size, size, 3).
        heat: float, shape (T, size, size), in [0, 1]; all zeros if the stage has no positive evidence for the target.
    """

    head: str
    stage: str
    places: tuple[int, int, int]
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    target: int
    frames: tuple[int, ...]
    seconds: tuple[float, float]
    clip: Tensor
    heat: Tensor

    @property
    def predicted(self) -> int:
        """Number of the most probable class."""
        return max(range(len(self.classes)), key=self.probabilities.__getitem__)

    def answer(self, number: int) -> str:
        """Format a class and its probability."""
        return f"{self.classes[number]} ({self.probabilities[number]:.1%})"


def explain(config: ExplainConfig, *, console: Console | None = None) -> Path:
    """Write overlay.mp4, overlay.gif, contact_sheet.png, explain.json and explain.html into a folder.

    Args:
        config: which video, which network, which class.
        console: where to report; the terminal by default.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: the folder does not contain a trained model.
        ValueError: the folder contains something else, the video cannot be read, the start is out of range, or the
            head, class or stage does not exist; the message lists those that exist.
    """
    console, out = console or Console(), Path(config.out)
    require_own(out / "explain.json", command="v3s explain")
    subject = open_subject(config.backbone, choose_compute(config.device, config.precision))
    video = subject.view.sample(index_video(config.video))
    start = None if config.start is None else _start_frame(video, subject.view, parse_time(config.start, "start"))
    explanation = explain_clip(subject, video, head=config.head, target=config.target, stage=config.stage, start=start)
    overlaid = overlay(explanation.clip, explanation.heat)
    film, sheet = mp4(overlaid, video.fps), png(contact_sheet(explanation.clip, overlaid))
    films = [("Clip", mp4(explanation.clip, video.fps)), ("Heat map", film)]
    files = {
        "explain.json": json_as_bytes(_description(config, subject, explanation)),  # first: it marks the videos as ours
        "overlay.mp4": film,
        "overlay.gif": gif(overlaid, video.fps),
        "contact_sheet.png": sheet,
        "explain.html": _page(config, explanation, films, sheet).encode(),
    }
    write_files({out / name: content for name, content in files.items()})
    say(console, f"{config.video}: {_frame_range(explanation)}. {_summary(explanation)}")
    return out / "explain.html"


def open_subject(run: str | Path, compute: Compute | None = None) -> Subject:
    """Open a fine-tuned run, or a pre-trained run with those of its heads that have more than one class.

    Args:
        run: the folder of the run.
        compute: device and precision; the CPU in fp32 by default.

    Raises:
        CheckpointError: the run does not exist.
    """
    compute = compute or choose_compute("cpu", "fp32")
    if describe_trained(run).kind == "recognizer":
        classifier, network = load_classifier(run), load_backbone(run)
        if classifier.space.feature != Feature(list(network.stages)[-1]):  # type: ignore[arg-type]
            raise CheckpointError(
                f"{run}: its classifier takes {classifier.space.feature.stage}, {classifier.space.feature.pool}; v3s "
                "explain shows classifiers of the mean of the last stage"
            )
        heads, view = {"recognition": ExplainedHead(classifier.layer, classifier.classes)}, classifier.space.view
        return Subject(network, heads, view, lambda video: view.to_clip(video.width, video.height), compute)
    model, trained = load_pretext_model(run)
    heads = {
        "temporal": ExplainedHead(model.temporal_head, tuple(map(str, trained.task.temporal))),
        "spatial": ExplainedHead(model.spatial_head, tuple(map(str, trained.task.spatial))),
    }
    heads = {name: head for name, head in heads.items() if len(head.classes) > 1}
    to_clip = partial(untransformed, sampling=trained.sampling)
    return Subject(model.backbone, heads, trained.view, to_clip, compute)


def explain_clip(
    subject: Subject,
    video: Video,
    *,
    head: str | None = None,
    target: str | None = None,
    stage: str = "conv5",
    start: int | None = None,
) -> Explanation:
    """Explain one class score for one clip of a video.

    Args:
        subject: the network.
        video: cropped at the centre, at the original speed.
        head: name of a head; the subject's first by default.
        target: name or number of a class; the predicted class by default.
        stage: name of a stage of the backbone.
        start: first frame of the clip; the middle of the video by default.

    Raises:
        ValueError: the head, class or stage does not exist, the start is out of range, or the video cannot be read.

    Source: paper section 4.6.
    """
    name = head or next(iter(subject.heads))
    if name not in subject.heads:
        raise ValueError(
            f"the network has no {name} head with more than one class; available: {', '.join(subject.heads)}"
        )
    check_stage(subject.backbone, stage)
    chosen, compute = subject.heads[name], subject.compute
    requested = None if target is None else class_number(target, chosen.classes)
    backbone, layer = subject.backbone.to(compute.device), chosen.layer.to(compute.device)
    frames = clip_frames(video, subject.view, start)
    of_file = tuple(video.source_frames(frames)) if isinstance(video, Span) else frames
    size = subject.view.clip_size
    clip = warp(read_frames(video, frames), subject.to_clip(video), size, size)
    batch = compute.clips(clip[None])
    with compute.autocast():
        with torch.no_grad():
            stages = backbone.forward_stages(batch)  # type: ignore[operator]
            logits = layer(list(stages.values())[-1].mean(dim=(2, 3, 4)))[0].double()
        number = int(logits.argmax()) if requested is None else requested
        heat = grad_cam(backbone, layer, batch, stage, number)  # type: ignore[arg-type]
    probabilities = tuple(logits.softmax(dim=0).tolist())
    pixels = clip.permute(1, 2, 3, 0)
    places = stages[stage].shape[2], stages[stage].shape[3], stages[stage].shape[4]
    seconds = time_of_frame(video, frames[0]), time_of_frame(video, frames[-1])
    return Explanation(
        name, stage, places, chosen.classes, probabilities, number, of_file, seconds, pixels, heat[0].float().cpu()
    )


def class_number(target: str, classes: tuple[str, ...]) -> int:
    """Return the number of a class, given its name or the number itself.

    Raises:
        ValueError: the class does not exist; the message names those that do, the first ones of many.
    """
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(classes[:_MAX_NAMED]))
    known += f" and {len(classes) - _MAX_NAMED:,} more" if len(classes) > _MAX_NAMED else ""
    raise ValueError(f"unknown class {target!r}{closest(target, classes)}; available: {known}")


def _start_frame(video: Video, view: View, seconds: float) -> int:
    """The number of the frame nearest to the start of a clip.

    Raises:
        ValueError: less than a clip follows.
    """
    first, latest = nearest_frame(video, seconds), max(0, video.num_frames - view.clip_frames)
    if first > latest:
        raise ValueError(
            f"{video.path}: start is {time_text(seconds)}; a clip of {view.clip_frames} frames must start at "
            f"{time_text(time_of_frame(video, latest))} or before"
        )
    return first


def clip_frames(video: Video, view: View, start: int | None) -> tuple[int, ...]:
    """Return the frame numbers of a clip, the middle one by default; a short video repeats its last frame.

    Raises:
        ValueError: the start is out of range.
    """
    room = max(0, video.num_frames - view.clip_frames)
    first = room // 2 if start is None else start
    if not 0 <= first <= room:
        raise ValueError(
            f"{video.path}: start is {first}; a clip of {view.clip_frames} frames in a video of {video.num_frames} "
            f"must start at frame 0 to {room}"
        )
    return view.frames(first, video.num_frames)


def _page(config: ExplainConfig, explanation: Explanation, films: list[tuple[str, bytes]], sheet: bytes) -> str:
    classes, probabilities, target = explanation.classes, explanation.probabilities, explanation.target
    ranked = sorted(range(len(classes)), key=probabilities.__getitem__, reverse=True)
    predictions = [
        (number, classes[number], f"{probabilities[number]:.1%}", "explained" * (number == target))
        for number in ranked
        if number == target or number in ranked[:_MAX_PREDICTIONS]
    ]
    return render(
        "explain.html",
        lead=f"{config.video}: {_frame_range(explanation)}. Network: {config.backbone}. {_summary(explanation)}",
        films=[(data_uri(film, "video/mp4"), caption) for caption, film in films],
        sheet=data_uri(sheet, "image/png"),
        predictions=predictions,
        shown=explanation,
    )


def _summary(explanation: Explanation) -> str:
    predicted, target = explanation.answer(explanation.predicted), explanation.answer(explanation.target)
    summary = f"The {explanation.head} head predicts {predicted}. Explained class: {target}, from {explanation.stage}."
    if not explanation.heat.any():
        summary += f" {explanation.stage} has no positive evidence for this class: the heat map is all zeros."
    return summary


def _frame_range(explanation: Explanation) -> str:
    first, last = explanation.frames[0], explanation.frames[-1]
    repeats = explanation.frames.count(last) - 1
    padding = f" (the video is shorter than a clip: the last frame is repeated {repeats} times)" if repeats else ""
    times = "{} to {}".format(*map(time_text, explanation.seconds))
    return f"{times}, frames {first} to {last}{padding}"


def _description(config: ExplainConfig, subject: Subject, explanation: Explanation) -> dict[str, Any]:
    return {
        "video": config.video,
        "backbone": config.backbone,
        "fingerprint": fingerprint(subject.backbone.state_dict()),
        "head": explanation.head,
        "stage": explanation.stage,
        "places": explanation.places,
        "frames": explanation.frames,
        "seconds": explanation.seconds,
        "clip_size": subject.view.clip_size,
        "predicted": explanation.classes[explanation.predicted],
        "target": explanation.classes[explanation.target],
        "target_number": explanation.target,
        "no_evidence": not bool(explanation.heat.any()),
        "probabilities": dict(zip(explanation.classes, explanation.probabilities, strict=True)),
    }
