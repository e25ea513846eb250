"""The window of a network holds wherever its clips are seen: probes, recognizers, stored vectors, search, previews."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from rich.console import Console

from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.pretrain import PretrainConfig
from v3s.data.store_folder import open_store
from v3s.data.views import View
from v3s.export.model import open_model
from v3s.features.encoder import Feature
from v3s.features.saved import describe_trained
from v3s.protocols.compare import CompareConfig, compare
from v3s.protocols.labelled.features import labelled_vectors
from v3s.protocols.probe import ProbeConfig
from v3s.protocols.similarity import SimilarityConfig, similarity
from v3s.recognizers.classifier import load_classifier
from v3s.recognizers.predict import PredictConfig, predict
from v3s.recognizers.recognizer import load_recognizer
from v3s.serve.previews import Preview, file_state, make_preview
from v3s.vectors.collection import open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.query import known_video
from v3s.vectors.search import SearchConfig, search

QUIET = Console(quiet=True)
WINDOW = "200,700"


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of six stacks of 16 bits, 20 frames of 24 x 32 pixels: a spot moves in one direction, or not."""
    folder, rng = tmp_path_factory.mktemp("stacks"), np.random.default_rng(5)
    rows, columns = np.mgrid[:24, :32]
    speeds = {"across": (1.0, 0.0), "down": (0.0, 0.8), "both": (0.8, 0.6), "still": (0.0, 0.0)}
    for kind, (right, down) in speeds.items():
        (folder / kind).mkdir()
        for number in range(6):
            places = [(4 + number + right * frame, 4 + number + down * frame) for frame in range(20)]
            spots = np.array([np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 20) for x, y in places])
            values = 100 + 800 * np.clip(0.9 * spots + 0.1 * rng.random(spots.shape), 0, 1)
            tifffile.imwrite(folder / kind / f"cell_{number}.tif", values.astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def probing(stacks: Path) -> ProbeConfig:
    return ProbeConfig(
        data=str(stacks), backbone="random:r3d@0.125", clip_frames=8, clip_size=32, num_clips=2, few_labels=(),
        window=WINDOW, workers=0, device="cpu", precision="fp32",
    )  # fmt: skip


def embedding(stacks: Path, out: Path, **values: object) -> EmbedConfig:
    given = EmbedConfig(
        data=str(stacks), backbone="random:r3d@0.125", out=str(out), clip_frames=8, clip_size=32, num_clips=2,
        dtype="float32", window=WINDOW, workers=0, device="cpu", precision="fp32",
    )  # fmt: skip
    return replace(given, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stored(stacks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Vectors of these stacks through the window, and through that of each file."""
    folder = tmp_path_factory.mktemp("vectors")
    for name, window in (("same", WINDOW), ("auto", None)):
        embed(embedding(stacks, folder / name, window=window), console=QUIET)
    return {name: folder / name for name in ("same", "auto")}


def of_store(probing: ProbeConfig, vectors: Path, window: str | None) -> ProbeConfig:
    return replace(probing, data=None, backbone=None, vectors=str(vectors), window=window)


def test_stored_vectors_are_those_of_the_videos_through_the_window(
    probing: ProbeConfig, stored: dict[str, Path]
) -> None:
    expected = labelled_vectors(probing, Feature(), console=QUIET)
    for window in (WINDOW, None):
        found = labelled_vectors(of_store(probing, stored["same"], window), Feature(), console=QUIET)
        assert torch.equal(found.train, expected.train)
    other = labelled_vectors(of_store(probing, stored["auto"], "auto"), Feature(), console=QUIET)
    assert not torch.equal(other.train, expected.train)
    for name, window, message in (
        ("auto", WINDOW, f"embedded with --window auto, not --window {WINDOW}"),
        ("same", "auto", f"embedded with --window {WINDOW}, not --window auto"),
    ):
        with pytest.raises(VectorsError, match=message):
            labelled_vectors(of_store(probing, stored[name], window), Feature(), console=QUIET)
    train = labelled_vectors(of_store(probing, stored["same"], None), Feature(), console=QUIET).parts.train
    assert train.opens is not None
    assert train.opens(0).window == (200, 700)


def test_a_recognizer_keeps_its_window(stacks: Path, recognizer: Path, stored: dict[str, Path], tmp_path: Path) -> None:
    assert describe_trained(recognizer).window == load_classifier(recognizer).space.view.window == WINDOW
    assert open_model(recognizer).view.window == WINDOW
    config = PredictConfig(
        data=str(stacks), recognizer=str(recognizer), out=str(tmp_path / "videos.csv"), workers=0, device="cpu",
        precision="fp32",
    )  # fmt: skip
    predict(config, console=QUIET)
    predict(replace(config, data="", vectors=str(stored["same"]), out=str(tmp_path / "vectors.csv")), console=QUIET)
    lines, others = ((tmp_path / name).read_text().splitlines() for name in ("videos.csv", "vectors.csv"))
    assert [line.split(",")[:4] for line in lines] == [line.split(",")[:4] for line in others]
    predict(replace(config, window=WINDOW), console=QUIET)
    assert (tmp_path / "videos.csv").read_text().splitlines() == lines
    file = stacks / "down" / "cell_3.tif"
    (alone,) = load_recognizer(recognizer, device="cpu", precision="fp32").predict(file)
    assert alone.classes[0] in next(line for line in lines if "down/cell_3" in line)
    for refused in ("auto", "full"):
        with pytest.raises(ValueError, match=f"window is {refused}, .* trained with window {WINDOW}"):
            predict(replace(config, window=refused), console=QUIET)
    with pytest.raises(VectorsError, match=f"their window is auto, and .* fitted on vectors whose window is {WINDOW}"):
        predict(replace(config, data="", vectors=str(stored["auto"])), console=QUIET)


def test_similarity_of_stored_stages_obeys_the_window(stacks: Path, tmp_path: Path) -> None:
    config = SimilarityConfig(
        data=str(stacks), backbone="random:r3d@0.125", stages=("conv5",), stride=8, num_folds=2, pairs_per_fold=4,
        clip_frames=8, clip_size=32, window=WINDOW, workers=0, device="cpu", precision="fp32",
    )  # fmt: skip
    vectors = embedding(stacks, tmp_path / "vectors", stride=8, stage="conv5")
    embed(vectors, console=QUIET)
    of_vectors = replace(config, data=None, backbone=None, vectors=(vectors.out,))
    assert similarity(of_vectors, console=QUIET).result.mean == similarity(config, console=QUIET).result.mean
    with pytest.raises(VectorsError, match="not --window full"):
        similarity(replace(of_vectors, window="full"), console=QUIET)


def test_a_comparison_names_the_window(stacks: Path, tmp_path: Path) -> None:
    config = CompareConfig(
        data=str(stacks), backbones=("random:r3d@0.125",), out=str(tmp_path / "compared"), num_clips=2, window=WINDOW,
        workers=0, device="cpu", precision="fp32",
    )  # fmt: skip
    (row,) = compare(config, console=QUIET).rows
    assert row.clips.endswith(f"112 x 112 pixels, window {WINDOW}")


def test_a_stretch_is_searched_and_shown_through_the_window(stacks: Path, tmp_path: Path) -> None:
    vectors = Path(embedding(stacks, tmp_path / "vectors", per_clip=True, stride=4).out)
    embed(embedding(stacks, vectors, per_clip=True, stride=4), console=QUIET)
    file = stacks / "across" / "cell_2.tif"
    config = SearchConfig(query=str(file), start="0.16", end="0.48", vectors=str(vectors), k=40, device="cpu")
    collection = open_vectors(vectors)
    assert known_video(stacks, file, View(window=WINDOW)).window == (200, 700)
    hits = search(config, console=QUIET)
    assert hits
    places = [collection.place_of(row) for row in range(4)]
    state = file_state(str(stacks), places[0].file)
    narrow, wide = (
        make_preview(Preview(str(stacks), places[0], View(window=window), "picture", state, 64))
        for window in (WINDOW, "full")
    )
    assert narrow != wide


def test_a_store_of_another_window_is_not_searched_with(stacks: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(stacks), out=str(tmp_path / "store"), workers=0, window=WINDOW), console=QUIET)
    store = open_store(tmp_path / "store")
    name = next(iter(store.files))
    assert known_video(store.folder, store.folder / name, View(window=WINDOW)).window == (200, 700)
    with pytest.raises(ValueError, match=f"stored with --window {WINDOW}, not auto"):
        known_video(store.folder, store.folder / name, View())


def test_a_store_is_seen_through_its_own_window(stacks: Path, tmp_path: Path) -> None:
    """Without an option, and the vectors know it; another one is refused by name."""
    store = tmp_path / "store"
    prepare(
        PrepareConfig(data=str(stacks), out=str(store), workers=0, window=WINDOW, mask="auto", pixel_format="rgb"),
        console=QUIET,
    )
    config = replace(embedding(stacks, tmp_path / "vectors"), data=str(store), window=None)
    embed(config, console=QUIET)
    view = open_vectors(Path(config.out)).description.space.view
    assert (view.window, view.mask) == (WINDOW, "auto")
    for options in (PretrainConfig(data=str(store), out="run"), ProbeConfig(data=str(store), backbone="run")):
        assert (options.window, options.mask) == (WINDOW, "auto")
    with pytest.raises(ValueError, match=f"stored with --window {WINDOW}, not full"):
        embed(replace(config, out=str(tmp_path / "others"), window="full"), console=QUIET)
    (store / "store.json").write_text("{")
    assert PretrainConfig(data=str(store), out="run").window is None, "its damage is said when it is read"


@pytest.mark.parametrize("window", ["9,1", "Full"])
def test_a_forged_view_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="give auto, full, or two values"):
        View(window=window)
