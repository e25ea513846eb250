"""``v3s explain``: where in a clip, and when, a network finds what it answers (paper section 4.6, Figure 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones.device import Compute, ComputeOptions, choose_compute
from v3s.data.letterbox import untransformed
from v3s.data.views import View
from v3s.features.extract import check_stage
from v3s.features.saved import describe_trained, load_pretext_model
from v3s.files.text import say
from v3s.files.weights import fingerprint
from v3s.files.writing import write_json, write_whole
from v3s.options import closest
from v3s.pages.images import data_uri, gif, mp4, png
from v3s.pages.page import page, paragraph, section, strip, table, write_page
from v3s.protocols.gradcam import contact_sheet, grad_cam, overlay
from v3s.protocols.recognition import load_recognizer
from v3s.video.decode import Video, read_frames
from v3s.video.homography import Homography
from v3s.video.index import index_video
from v3s.video.warp import warp

_MOST_ANSWERS = 10  # on the page


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(ComputeOptions):
    """Show where a network looks (Grad-CAM; paper section 4.6, Figure 5).

    Attributes:
        video: The video.
        backbone: A run's folder: of pretrain (spatial and temporal heads) or of finetune (recognition).
        target: The class's name or number. Default: the class that the network predicts.
        out: Folder for the overlay (MP4 and GIF) and the contact sheet (PNG).

    More options:
        head: Whose logit is explained. Default: recognition for a fine-tuned network, temporal for a pre-trained one.
        stage: The backbone's stage whose activations are shown; conv4 is finer in time and space than conv5.
        start: First frame of the clip. Default: the clip in the middle of the video.
    """

    video: Annotated[str, "VIDEO"]
    backbone: str
    head: Literal["spatial", "temporal", "recognition"] | None = None
    target: str | None = None
    stage: str = "conv5"
    start: int | None = None
    out: str = "explain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if Path(self.out).is_file():
            raise ValueError(f"out is {self.out}, a file; give a folder")


@dataclass(frozen=True, slots=True)
class ExplainedHead:
    """A fully connected layer on the backbone's features, and what its outputs stand for."""

    layer: nn.Module
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to explain.

    Attributes:
        backbone: in evaluation mode.
        heads: by name; the first is the one that is explained unless another is asked for.
        view: length and size of the clips that it is shown.
        to_clip: the map from a video's frames to them: pretext heads see the scale that they were trained on.
        compute: device and precision.
    """

    backbone: nn.Module
    heads: dict[str, ExplainedHead]
    view: View
    to_clip: Callable[[Video], Homography]
    compute: Compute


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a network found one of its answers.

    Attributes:
        head: name of the head.
        stage: name of the stage that was looked at.
        places: the stage's size in time, height and width: the heat is no finer than that.
        classes: what the head's outputs stand for.
        probabilities: of each class.
        target: number of the class that is explained.
        frames: source frame numbers of the clip; the last one repeats where the video is too short.
        clip: uint8, shape (T, size, size, 3).
        heat: float, shape (T, size, size), in [0, 1]; 0 everywhere where nothing in the stage speaks for the target.
    """

    head: str
    stage: str
    places: tuple[int, int, int]
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    target: int
    frames: tuple[int, ...]
    clip: Tensor
    heat: Tensor

    @property
    def predicted(self) -> int:
        """Number of the most probable class."""
        return max(range(len(self.classes)), key=self.probabilities.__getitem__)

    def answer(self, number: int) -> str:
        """A class and its probability in words."""
        return f"{self.classes[number]} ({self.probabilities[number]:.1%})"


def explain(config: ExplainConfig, *, console: Console | None = None) -> Path:
    """Write overlay.mp4, overlay.gif, contact_sheet.png, explain.json and explain.html into a folder.

    Args:
        config: which video, which network, which of its answers.
        console: where to report; the terminal by default.

    Returns:
        The page.

    Raises:
        CheckpointError: the folder holds no trained model.
        ValueError: the video cannot be read or has no such start, or there is no such head, class or stage; the
            message lists those that exist.
    """
    console = console or Console()
    subject = open_subject(config.backbone, choose_compute(config.device, config.precision))
    video = index_video(config.video)
    found = explain_clip(subject, video, head=config.head, target=config.target, stage=config.stage, start=config.start)
    out = Path(config.out)
    shown = overlay(found.clip, found.heat)
    playing, sheet = mp4(shown, video.fps), png(contact_sheet(found.clip, shown))
    files = {"overlay.mp4": playing, "overlay.gif": gif(shown, video.fps), "contact_sheet.png": sheet}
    for name, content in files.items():
        write_whole(out / name, content)
    write_json(out / "explain.json", _description(config, subject, found))
    pictures = [("the clip", mp4(found.clip, video.fps)), ("its heat", playing)]
    write_page(out / "explain.html", _page(config, found, pictures, sheet))
    say(console, f"{config.video}: {_place(found)}. {_summary(found)}")
    return out / "explain.html"


def open_subject(run: str | Path, compute: Compute | None = None) -> Subject:
    """Open a pre-trained run with those of its heads that have something to tell apart, or a fine-tuned run.

    Args:
        run: its folder.
        compute: device and precision; the CPU in fp32 by default.

    Raises:
        CheckpointError: there is no such run.
    """
    compute = compute or choose_compute("cpu", "fp32")
    if describe_trained(run).kind == "recognizer":
        recognizer, tuned = load_recognizer(run)
        heads = {"recognition": ExplainedHead(recognizer.classifier, tuned.classes)}
        view = View(clip_frames=tuned.sampling.clip_frames, clip_size=tuned.sampling.clip_size)
        return Subject(recognizer.backbone, heads, view, lambda video: view.to_clip(video.width, video.height), compute)
    model, trained = load_pretext_model(run)
    pretext = {
        "temporal": ExplainedHead(model.temporal_head, tuple(map(str, trained.task.temporal))),
        "spatial": ExplainedHead(model.spatial_head, tuple(map(str, trained.task.spatial))),
    }
    several = {name: head for name, head in pretext.items() if len(head.classes) > 1}
    sampling = trained.sampling
    view = View(clip_frames=sampling.clip_frames, clip_size=sampling.clip_size)
    return Subject(model.backbone, several, view, partial(untransformed, sampling=sampling), compute)


def explain_clip(
    subject: Subject,
    video: Video,
    *,
    head: str | None = None,
    target: str | None = None,
    stage: str = "conv5",
    start: int | None = None,
) -> Explanation:
    """Explain one answer about one clip of a video.

    Args:
        subject: the network.
        video: cut at the centre, at the video's own speed.
        head: name of a head; the subject's first by default.
        target: a class's name or number; the one that the network predicts by default.
        stage: name of a stage of the backbone.
        start: first frame of the clip; the middle of the video by default.

    Raises:
        ValueError: there is no such head, class, stage or start, or the video cannot be read.

    Source: paper section 4.6.
    """
    name = head or next(iter(subject.heads))
    if name not in subject.heads:
        raise ValueError(f"the network has no {name} head with several classes; it has: {', '.join(subject.heads)}")
    check_stage(subject.backbone, stage)
    chosen, compute = subject.heads[name], subject.compute
    asked = None if target is None else class_number(target, chosen.classes)
    backbone, layer = subject.backbone.to(compute.device), chosen.layer.to(compute.device)
    frames = clip_frames(video, subject.view, start)
    size = subject.view.clip_size
    clip = warp(read_frames(video, frames), subject.to_clip(video), size, size)
    shown = compute.clips(clip[None])
    with compute.autocast():
        with torch.no_grad():
            stages = backbone.forward_stages(shown)  # type: ignore[operator]
            logits = layer(list(stages.values())[-1].mean(dim=(2, 3, 4)))[0].double()
        number = int(logits.argmax()) if asked is None else asked
        heat = grad_cam(backbone, layer, shown, stage, number)  # type: ignore[arg-type]
    probabilities = tuple(logits.softmax(dim=0).tolist())
    pixels = clip.permute(1, 2, 3, 0)
    places = stages[stage].shape[2], stages[stage].shape[3], stages[stage].shape[4]
    return Explanation(
        name, stage, places, chosen.classes, probabilities, number, frames, pixels, heat[0].float().cpu()
    )


def class_number(target: str, classes: tuple[str, ...]) -> int:
    """The number of a class given by its name, or by the number itself.

    Raises:
        ValueError: there is no such class; the message lists those that exist.
    """
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
    raise ValueError(f"no class is called {target!r}{closest(target, classes)}; there are: {known}")


def clip_frames(video: Video, view: View, start: int | None) -> tuple[int, ...]:
    """The frames of a clip from a given start, or of the middle one; a shorter video repeats its last frame.

    Raises:
        ValueError: a clip cannot start there.
    """
    room = max(0, video.num_frames - view.clip_frames)
    first = room // 2 if start is None else start
    if not 0 <= first <= room:
        raise ValueError(
            f"{video.path}: has {video.num_frames} frames; a clip of {view.clip_frames} starts at frame 0 to {room}, "
            f"and {first} was asked for"
        )
    return view.frames(first, video.num_frames)


def _page(config: ExplainConfig, found: Explanation, pictures: list[tuple[str, bytes]], sheet: bytes) -> str:
    ranked = sorted(range(len(found.classes)), key=found.probabilities.__getitem__, reverse=True)
    answers = [
        (number, found.classes[number], f"{found.probabilities[number]:.1%}", "explained" * (number == found.target))
        for number in ranked
        if number == found.target or number in ranked[:_MOST_ANSWERS]
    ]
    times, rows, columns = found.places
    reading = (
        "Grad-CAM: the brighter, the more the place raised the logit of the explained class, scaled to the clip's "
        f"brightest. {found.stage} sees {times} x {rows} x {columns} places in time, height and width; between them "
        "the heat is interpolated. It shows where the network looked, not whether it was right: where the "
        f"probability is near that of a guess ({1 / len(found.classes):.1%}), the map says little."
    )
    if found.head == "spatial":
        reading += " The clip is not transformed, which no class of this head stands for: its answer is the nearest."
    blocks = [
        section("The clip", strip([(caption, data_uri(film, "video/mp4")) for caption, film in pictures])),
        section("Frame by frame", strip([("frames above, heat below", data_uri(sheet, "image/png"))])),
        section("What the head answers", table(("number", "class", "probability", ""), answers)),
        section("How to read it", paragraph(reading)),
    ]
    lead = f"{config.video}: {_place(found)}. Network: {config.backbone}. {_summary(found)}"
    return page("Where it looks", blocks, lead=lead)


def _summary(found: Explanation) -> str:
    nothing = "" if found.heat.any() else f" Nothing in {found.stage} speaks for it: the heat is 0 everywhere."
    return (
        f"The {found.head} head answers {found.answer(found.predicted)}; explained, from {found.stage}: "
        f"{found.answer(found.target)}.{nothing}"
    )


def _place(found: Explanation) -> str:
    first, last = found.frames[0], found.frames[-1]
    repeats = len(found.frames) - (last - first + 1)
    padded = f", the last one repeated {repeats} times: the video is shorter than a clip" if repeats else ""
    return f"source frames {first} to {last}{padded}"


def _description(config: ExplainConfig, subject: Subject, found: Explanation) -> dict[str, Any]:
    return {
        "video": config.video,
        "backbone": config.backbone,
        "fingerprint": fingerprint(subject.backbone.state_dict()),
        "head": found.head,
        "stage": found.stage,
        "places": found.places,
        "frames": found.frames,
        "clip_size": subject.view.clip_size,
        "predicted": found.classes[found.predicted],
        "target": found.classes[found.target],
        "target_number": found.target,
        "no_evidence": not bool(found.heat.any()),
        "probabilities": dict(zip(found.classes, found.probabilities, strict=True)),
    }
