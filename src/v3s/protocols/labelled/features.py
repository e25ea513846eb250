"""Vectors of labelled videos for a protocol: computed from the videos, or taken from a collection of v3s embed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from torch import Tensor

from v3s.data.lists.splits import VideoList
from v3s.data.usable import report_padded
from v3s.data.views import asked_of
from v3s.features.encoder import Encoder, Feature, Space, open_encoder, restored
from v3s.features.source import EncoderOptions
from v3s.files.text import say, short_repr
from v3s.protocols.labelled import LabelledOptions, check_lists, labelled_parts
from v3s.protocols.labelled.parts import Labelled, Parts, keep_division, make_parts
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.labels import GIVEN, Contents, Joined, join, list_contents, list_labelled, list_official
from v3s.vectors.query import place_opener
from v3s.video.decode import Video


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(EncoderOptions, LabelledOptions):
    """Labelled videos and a network, or vectors of them.

    Attributes:
        vectors: Folder of vectors from v3s embed, in place of --backbone. Without DATA, labels are those of the
            collection, or of --splits; DATA may be a list file of labelled files or spans. The figures are those of the
            videos, if v3s embed had the same --stage and --pool, and --dtype float32.
        out: JSON file for the result. If the command divides the videos, both lists are written beside it.

    More options:
        num_clips: Clips per video, evenly spaced. Default: 10, or those of the vectors of --in.
    """

    vectors: Annotated[str | None, "--in"] = None
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_source(self)
        if self.data is None and self.test_data is not None:
            raise ValueError(f"test_data is {self.test_data}, without a list of training videos; give it as DATA")


def require_source(config: Any) -> None:
    """Check that a configuration names videos and a network, or stored vectors, and nothing that these exclude.

    Raises:
        ValueError: something is missing, or two options exclude each other.
    """
    if not config.vectors:
        if missing := [name for name in ("data", "backbone") if getattr(config, name) is None]:
            raise ValueError(f"{missing[0]} is missing; give DATA and --backbone, or vectors with --in")
        return
    if config.backbone is not None:
        raise ValueError(f"backbone ({config.backbone}) and --in cannot be combined; give only one")
    if config.data is not None and config.splits is not None:
        raise ValueError(f"data ({config.data}) and splits ({config.splits}) of --in cannot be combined; give only one")
    if config.segment is not None:
        raise ValueError(f"segment is {config.segment:g}, but stored vectors are cut already; give it to v3s embed")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVectors:
    """Labelled videos in two parts, with one vector each.

    Attributes:
        parts: the videos and their labels.
        train: vectors of the training videos, the mean over the clips of each: float32, shape (N, D).
        test: those of the test videos, shape (M, D).
        backbone: the network, as it was given.
        space: its weights, the clips, and the feature.
    """

    parts: Parts
    train: Tensor
    test: Tensor
    backbone: str
    space: Space
    __repr__ = short_repr


def labelled_vectors(
    options: FeatureOptions, feature: Feature, *, console: Console, divides: bool = False
) -> LabelledVectors:
    """List both parts of labelled videos, and compute their vectors or take them from a collection.

    The numbers are equal, bit by bit, if the collection was embedded in float32 with one vector per video, by the same
    network on the same kind of device, with the same feature and clips.

    Args:
        options: where the videos and their labels are; which network or collection.
        feature: stage and pooling.
        console: where to report and to show progress.
        divides: as for `v3s.protocols.labelled.labelled_parts`.

    Raises:
        ValueError: as `v3s.protocols.labelled.labelled_parts`; the network's output contains NaN or infinity; or the
            collection has another feature, other clips, or not all videos.
    """
    take = _computed if options.vectors is None else _stored
    found = take(options, feature, console, divides)
    if options.out is not None:
        beside = Path(options.out).with_suffix("")
        keep_division(found.parts, beside.with_name(f"{beside.name}-split"), console)
    elif found.parts.is_divided:
        say(console, "--out RESULT.json keeps this division beside the result, to be given again")
    return found


def _computed(options: FeatureOptions, feature: Feature, console: Console, divides: bool) -> LabelledVectors:
    encoder = open_encoder(options, [feature])
    parts = labelled_parts(
        options, seed=options.seed, workers=options.workers, console=console, divides=divides, view=encoder.view
    )
    return encode_parts(encoder, parts, console)


def encode_parts(encoder: Encoder, parts: Parts, console: Console) -> LabelledVectors:
    """Compute the vectors of both parts of labelled videos, which were read.

    Raises:
        ValueError: the network's output contains NaN or infinity.
    """
    report_padded(parts.tables, encoder.view, console)
    train, test = (
        restored(encoder.mean_vectors(table, console=console, what=what)) for what, table in parts.tables.items()
    )
    return LabelledVectors(parts, train, test, encoder.source.name, encoder.space)


def _stored(options: FeatureOptions, feature: Feature, console: Console, divides: bool) -> LabelledVectors:
    vectors = open_vectors(str(options.vectors))
    require_view(vectors, options, feature)
    if vectors.description.dtype != "float32":
        say(console, f"{vectors.folder}: float16 numbers; figures of the videos to the last digit need --dtype float32")
    contents = Contents.of(vectors)
    given = vectors.folder.joinpath(*GIVEN)
    if options.data is None and given.is_file():
        say(console, f"{given} has labels that were given in v3s serve; give it as DATA to use them")
    lists = _list_parts(options, contents)
    check_lists(lists, options, divides)
    found = [take_stored(contents, listed, console, allow_missing=options.allow_missing) for listed in lists]
    parts = make_parts(found, options, seed=options.seed, divides=divides, console=console)
    train, test = parts.train.features, parts.test.features
    assert train is not None
    assert test is not None
    return LabelledVectors(parts, train, test, vectors.description.backbone, vectors.description.space)


def require_view(vectors: Vectors, options: EncoderOptions, feature: Feature, *, stride: int | None = None) -> None:
    """Refuse a collection with another feature or other clips than were asked for.

    Args:
        vectors: the collection.
        options: the clips; None takes those of the collection.
        feature: stage and pooling.
        stride: frames between the starts of clips, 0 for evenly spaced ones; None takes that of the collection.

    Raises:
        VectorsError: it differs; the message says what to give, and which command makes what was asked for.
    """
    stored, view = vectors.description, vectors.description.space.view
    feature = feature.among(stored.stages)
    has: dict[str, object] = {"stage": stored.space.feature.stage, "pool": stored.space.feature.pool}
    asked: dict[str, object] = {"stage": feature.stage, "pool": feature.pool}
    if stride is not None:
        has["stride"], asked["stride"] = view.stride, stride
    for name in ("clip_frames", "clip_size"):
        if (value := getattr(options, name)) is not None:
            has[name], asked[name] = getattr(view, name), value
    if not view.stride or stride == 0:
        has["num_clips"], asked["num_clips"] = view.num_clips, options.num_clips or view.num_clips
    for name, (value, own) in asked_of(view, options).items():
        has[name], asked[name] = own, value
    differing = [name for name in asked if asked[name] != has[name]]
    if differing:
        given, wanted = _as_options(has, differing), _as_options(asked, differing)
        source = f"{shlex.quote(stored.root)} --backbone {shlex.quote(stored.backbone)}"
        command = f"v3s embed {source} {_as_options(asked, list(asked))}"
        raise VectorsError(
            f"{vectors.folder} was embedded with {given}, not {wanted}; give {given} to use it, or make the other "
            f"vectors with {command} --out OTHER"
        )


def _as_options(values: Mapping[str, object], names: Sequence[str]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {values[name]}" for name in names)


def _list_parts(options: FeatureOptions, contents: Contents) -> list[VideoList]:
    """List the training and the test videos, or all of them where none are for testing."""
    missing = options.allow_missing
    if options.split != 1 and options.splits is None:
        raise ValueError(f"split {options.split} was given, without the lists that have it; give --splits")
    if options.data is not None:
        files = [Path(file) for file in (options.data, options.test_data) if file is not None]
        return [list_labelled(contents, file, allow_missing=missing) for file in files]
    if options.splits is not None:
        splits, split = Path(options.splits), options.split
        train, test = (
            list_official(contents, splits, split, subset, allow_missing=missing) for subset in ("train", "test")
        )
        return [train, test]
    if not contents.has_subsets:
        return [list_contents(contents)]
    return [list_contents(contents, subset="train"), list_contents(contents, subset="test")]


def take_stored(contents: Contents, listed: VideoList, console: Console, *, allow_missing: bool = False) -> Labelled:
    """Return the videos and spans of a list with their vectors from a collection; say which are listed and skipped.

    Raises:
        VectorsError: a listed file or span has no vector, or numbers are not finite.
    """
    say(console, listed.description)
    joined = join(contents, listed, allow_missing=allow_missing)
    say(console, *(f"skipped: {path}: {reason}" for path, reason in joined.left_out.items()))
    features = joined.features(contents.vectors)
    return Labelled(
        joined.videos, joined.copies, joined.left_out, None, features, partial(_open_stored, contents, joined)
    )


def _open_stored(contents: Contents, joined: Joined, number: int) -> Video:
    """Open what the middle one of a sample's rows shows."""
    vectors, rows = contents.vectors, joined.rows[joined.samples == number]
    return place_opener(vectors)(vectors.place_of(int(rows[len(rows) // 2])))
