"""Frames held in memory give the clips that reading gives, and say so when they cannot be held."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data import resident
from v3s.data.clips import PretextClips
from v3s.data.lists.splits import list_videos
from v3s.data.resident import ResidentFrames, _can_be_resident, cut_together, resident_batches
from v3s.data.scan import scan
from v3s.data.synthetic import make_clips
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
PLAIN = Sampling(clip_frames=4, clip_size=24, canvas_size=48)
VARIED = Sampling(
    clip_frames=4, clip_size=24, canvas_size=48, zoom="even", scale_jitter=0.5, blur=3, colour_jitter=0.4, grey=0.2
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of two sizes."""
    folder = tmp_path_factory.mktemp("stored")
    for name, size in (("large", (48, 64)), ("small", (40, 36))):
        make_clips(folder / "videos" / name, num_videos=3, num_frames=24, height=size[0], width=size[1])
    prepare(PrepareConfig(data=str(folder / "videos"), out=str(folder / "store"), workers=0), console=QUIET)
    return folder / "store"


def clips_of(store: Path, sampling: Sampling) -> PretextClips:
    return PretextClips(scan(list_videos(store), min_frames=20).usable_table, TASKS["v3s"], sampling, seed=1)


@pytest.mark.parametrize("sampling", [PLAIN, VARIED])
@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_clips_are_those_that_reading_gives(
    store: Path, sampling: Sampling, as_on_a_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if as_on_a_gpu:
        monkeypatch.setattr(resident, "cut_clips", cut_together)
    clips = clips_of(store, sampling)
    keys = [(2, number) for number in range(12)]
    ((made, labels),) = resident_batches(clips, ResidentFrames(clips.table, CPU), [keys])
    assert (made.shape, made.dtype) == ((12, 3, 4, 24, 24), torch.uint8)
    for number, key in enumerate(keys):
        clip, label = clips[key]
        assert torch.equal(label, labels[number])
        difference = (made[number].int() - clip.int()).abs()
        most = 0 if not as_on_a_gpu else 1 if sampling is PLAIN else 3  # recolouring multiplies what rounding left
        assert difference.max() <= most
        assert difference.float().mean() < 0.02


def test_a_process_holds_its_own_videos_alone(store: Path) -> None:
    clips = clips_of(store, PLAIN)
    all_frames, own = ResidentFrames(clips.table, CPU), ResidentFrames(clips.table, CPU, range(1, 6, 2))
    keys = [(0, number) for number in range(1, 6, 2)]
    ((expected, _),), ((made, _),) = (resident_batches(clips, frames, [keys]) for frames in (all_frames, own))
    assert torch.equal(made, expected)
    assert sum(map(len, own.rows.values())) * 2 == sum(map(len, all_frames.rows.values()))
    with pytest.raises(KeyError):
        next(resident_batches(clips, own, [[(0, 2)]]))


def test_training_in_memory_is_training_by_processes(store: Path, tmp_path: Path) -> None:
    """The same videos, labels and steps; pixels differ by rounding alone."""
    losses = {}
    for loading in ("resident", "workers"):
        config = PretrainConfig(
            data=str(store),
            out=str(tmp_path / loading),
            loading=loading,
            backbone="r3d",
            width=0.125,
            clip_frames=4,
            clip_size=24,
            epochs=2,
            batch_size=2,
            validation_videos=2,
            workers=0,
        )
        losses[loading] = pretrain(config, console=QUIET).validation["loss"]
    assert losses["resident"] == pytest.approx(losses["workers"], abs=0.02)


def test_files_and_pictures_are_refused(store: Path, small_videos: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(small_videos), out=str(tmp_path), pixel_format="jpeg", workers=0), console=QUIET)
    for folder in (small_videos, tmp_path):
        table = scan(list_videos(folder), min_frames=1).usable_table
        with pytest.raises(ValueError, match=r"in the format yuv or rgb can be held in memory; make one"):
            ResidentFrames(table, CPU)


def test_too_many_frames_are_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "SHARE_OF_MEMORY", 1e-9)
    with pytest.raises(ValueError, match=r"too much for .* GB of memory; read with processes"):
        ResidentFrames(scan(list_videos(store), min_frames=1).usable_table, CPU)


def see_a_gpu(monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int, allocated: int) -> torch.device:
    """What torch says of the memory of a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    return torch.device("cuda", 0)


@pytest.mark.parametrize(("reserved", "fits"), [(500, False), (500 + 2_000_000, True)])
def test_memory_that_torch_holds_unused_is_free(
    store: Path, monkeypatch: pytest.MonkeyPatch, reserved: int, fits: bool
) -> None:
    """Six videos of 24 frames take 490,000 bytes."""
    gpu = see_a_gpu(monkeypatch, free=1000, reserved=reserved, allocated=500)
    assert _can_be_resident(scan(list_videos(store), min_frames=1).usable_table, gpu) == fits


def test_of_frames_too_many_for_a_gpu_a_batch_alone_is_page_locked(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch rounds page-locked memory up to a power of two, and what is gathered from it is not page-locked."""
    clips = clips_of(store, PLAIN)
    frames = ResidentFrames(clips.table, see_a_gpu(monkeypatch, free=0, reserved=0, allocated=0))
    assert {(rows.device, rows.is_pinned()) for rows in frames.rows.values()} == {(CPU, False)}
    expected, empty, pinned = ResidentFrames(clips.table, CPU), torch.empty, list[bool]()

    def empty_without_gpu(shape: tuple[int, ...], *, pin_memory: bool = False, **given: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return empty(shape, **given)

    frames.device = torch.device("meta")  # there is no GPU to copy to
    kind = next(iter(frames.rows))
    monkeypatch.setattr(torch, "empty", empty_without_gpu)
    moved = frames.frames(kind, torch.tensor([3, 1]), 1)
    same = expected.frames(kind, torch.tensor([3, 1]), 1)
    assert pinned == [True, False]
    assert [plane.shape for plane in moved.planes] == [plane.shape for plane in same.planes]
    assert moved.planes[0].device.type == "meta"
