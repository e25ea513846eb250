"""The encoder: unit vectors, agreement with ``v3s embed``, and fingerprints that identify a network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.backbones import create_backbone
from v3s.backbones.device import choose_compute
from v3s.data.views import View
from v3s.features.encoder import Encoder, Feature, Space, load_encoder, make_encoder
from v3s.features.saved import Trained, save_trained
from v3s.features.source import open_source
from v3s.files.weights import fingerprint
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import get_task
from v3s.vectors.embed import EmbedConfig, embed
from v3s.video.decode import read_frames
from v3s.video.index import VideoError, index_video
from v3s.video.warp import warp

NETWORK = "random:r3d@0.125"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """An encoder with two clips of 8 x 32 x 32 per video."""
    view = View(clip_frames=8, clip_size=32, num_clips=2)
    return make_encoder(open_source(NETWORK), view, [Feature()], choose_compute("cpu", "fp32"))


@pytest.fixture(scope="module")
def videos(small_videos: Path) -> list[Path]:
    return sorted(small_videos.glob("*/*.mp4"))[:5]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained run with clips of 8 x 32 x 32."""
    folder = tmp_path_factory.mktemp("run")
    task, sampling = get_task("ts"), Sampling(clip_frames=8, clip_size=32)
    model = PretextModel(create_backbone("r3d", 0.125, seed=3), task)
    trained = Trained(kind="pretrained", backbone="r3d", width=0.125, task=task, sampling=sampling, results={})
    save_trained(folder, model, trained)
    return folder


def test_vectors_have_unit_length(encoder: Encoder, videos: list[Path]) -> None:
    vectors = encoder.encode(videos)
    assert (vectors.shape, vectors.dtype) == ((5, encoder.dimension), torch.float32)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))


def test_a_vector_is_the_mean_of_clips_cut_by_hand(encoder: Encoder, videos: list[Path]) -> None:
    index = index_video(videos[0])
    frames = warp(read_frames(index, range(40)), encoder.space.view.to_clip(index.width, index.height), 32, 32)
    clips = torch.stack([frames[:, start : start + 8] for start in (0, 32)]).float() / 255
    with torch.inference_mode():
        mean = encoder.backbone(clips).mean(dim=0)
    torch.testing.assert_close(encoder.encode(videos[0]), mean / mean.norm(), atol=1e-5, rtol=0)


def test_one_path_gives_one_vector(encoder: Encoder, videos: list[Path]) -> None:
    every = encoder.encode(videos)
    assert encoder.encode(str(videos[3])).shape == (encoder.dimension,)
    torch.testing.assert_close(encoder.encode(videos[3]), every[3], atol=1e-5, rtol=0)


def test_order_is_preserved_and_no_paths_give_no_vectors(encoder: Encoder, videos: list[Path]) -> None:
    backwards = encoder.encode(list(reversed(videos)))
    torch.testing.assert_close(backwards.flip(0), encoder.encode(videos), atol=1e-5, rtol=0)
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_each_clip_has_its_own_unit_vector(encoder: Encoder, videos: list[Path]) -> None:
    clips = encoder.encode_clips(videos[0])
    assert clips.shape == (2, encoder.dimension)
    torch.testing.assert_close(clips.norm(dim=1), torch.ones(2))
    assert not torch.allclose(clips[0], clips[1], atol=1e-4)


@pytest.mark.parametrize("stage", ["conv5", "conv3"])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_encode_agrees_with_embed(run: Path, small_videos: Path, tmp_path: Path, stage: str, pool: str) -> None:
    encoder = load_encoder(run, device="cpu", stage=stage, pool=pool, num_clips=2)  # type: ignore[arg-type]
    config = EmbedConfig(
        data=str(small_videos),
        out=str(tmp_path / "vectors"),
        backbone=str(run),
        num_clips=2,
        stage=stage,
        pool=pool,  # type: ignore[arg-type]
        dtype="float32",
        shard_videos=6,
        workers=0,
        device="cpu",
    )
    stored = embed(config, console=QUIET)
    assert stored.description.space.fingerprint == encoder.fingerprint
    assert stored.description.dimension == encoder.dimension
    encoded = encoder.encode([small_videos / stored.video(number).path for number in range(16)])
    torch.testing.assert_close(stored.take(torch.arange(16)), encoded, atol=1e-5, rtol=0)


def test_clips_are_those_of_the_run(run: Path) -> None:
    encoder = load_encoder(run / "backbone.safetensors", device="cpu")
    assert encoder.space.view == View(clip_frames=8, clip_size=32, num_clips=10)
    assert encoder.space.weights == fingerprint(create_backbone("r3d", 0.125, seed=3).state_dict())
    assert encoder.dimension == 64


def test_another_network_or_feature_has_another_fingerprint(run: Path) -> None:
    encoders = [
        load_encoder(run, device="cpu"),
        load_encoder(run, device="cpu", num_clips=3),
        load_encoder(run, device="cpu", pool="max"),
        load_encoder(run, device="cpu", stage="conv4"),
        load_encoder(f"random:{run}", device="cpu"),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    assert load_encoder(run, device="cpu").fingerprint == encoders[0].fingerprint


def test_vectors_of_earlier_versions_keep_their_fingerprint() -> None:
    """What was added to a view since, rate and window, counts only where it is given."""
    space = Space("ab", View(), Feature())
    assert space.fingerprint == "bcf345a2205ebb1c2d7afb92f9fd727b5e776d8bd5d1093052b70c869ca4247e"
    others = [replace(space, view=view) for view in (View(fps=5.0), View(window="full"))]
    assert len({each.fingerprint for each in (space, *others)}) == 3


def test_an_unreadable_file_is_reported(encoder: Encoder, videos: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"bad\.mp4: is not a video"):
        encoder.encode([videos[0], bad])
    with pytest.raises(VideoError, match=r"gone\.mp4: does not exist"):
        encoder.encode(tmp_path / "gone.mp4")


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="no stage 'layer4'; it has: conv1"):
        load_encoder(NETWORK, device="cpu", stage="layer4")


def test_damaged_weights_are_refused(videos: list[Path]) -> None:
    source = open_source(NETWORK)
    with torch.no_grad():
        next(source.backbone.parameters()).fill_(torch.nan)
    broken = make_encoder(source, View(clip_frames=8, clip_size=32, num_clips=1), [Feature()], choose_compute("cpu"))
    with pytest.raises(
        ValueError,
        match=rf"{videos[0].name}: random:r3d@0.125 outputs NaN or infinity for this video",
    ):
        broken.encode(videos[:1])
