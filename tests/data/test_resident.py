"""Frames in memory give the same clips as reading does; frames that cannot be kept in memory are refused."""

from contextlib import nullcontext
from dataclasses import replace
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
from v3s.data.resident import ResidentFrames, _can_be_resident, cut_together, load_resident_frames, resident_batches
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
    ((batch, labels),) = resident_batches(clips, ResidentFrames(clips.table, CPU), [keys])
    assert (batch.shape, batch.dtype) == ((12, 3, 4, 24, 24), torch.uint8)
    for number, key in enumerate(keys):
        clip, label = clips[key]
        assert torch.equal(label, labels[number])
        difference = (batch[number].int() - clip.int()).abs()
        tolerance = 0 if not as_on_a_gpu else 1 if sampling is PLAIN else 3  # recolouring amplifies rounding
        assert difference.max() <= tolerance
        assert difference.float().mean() < 0.02


def test_a_process_loads_only_its_own_videos(store: Path) -> None:
    clips = clips_of(store, PLAIN)
    all_frames, own = ResidentFrames(clips.table, CPU), ResidentFrames(clips.table, CPU, range(1, 6, 2))
    keys = [(0, number) for number in range(1, 6, 2)]
    ((expected, _),), ((batch, _),) = (resident_batches(clips, frames, [keys]) for frames in (all_frames, own))
    assert torch.equal(batch, expected)
    assert sum(map(len, own.rows.values())) * 2 == sum(map(len, all_frames.rows.values()))
    with pytest.raises(KeyError):
        next(resident_batches(clips, own, [[(0, 2)]]))


def test_training_from_memory_equals_training_with_workers(
    store: Path, small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    """The same videos, labels and steps; pixels differ only by rounding."""
    losses = {}
    for loading in ("resident", "workers"):
        config = replace(
            small_pretraining, data=str(store), out=str(tmp_path / loading), loading=loading, task="v3s", clip_frames=4,
            clip_size=24, batch_size=2, validation_videos=2,
        )  # fmt: skip
        losses[loading] = pretrain(config, console=QUIET).validation["loss"]
    assert losses["resident"] == pytest.approx(losses["workers"], abs=0.02)


def test_files_and_jpeg_stores_are_refused(store: Path, small_videos: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(small_videos), out=str(tmp_path), pixel_format="jpeg", workers=0), console=QUIET)
    for folder in (small_videos, tmp_path):
        table = scan(list_videos(folder), min_frames=1).usable_table
        with pytest.raises(ValueError, match="only a store in the format yuv or rgb can be loaded into memory"):
            ResidentFrames(table, CPU)


@pytest.mark.parametrize(
    ("num_bytes", "num_processes", "enough"), [(490_000, 1, True), (480_000, 1, False), (970_000, 2, False)]
)
def test_too_many_frames_are_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int, num_processes: int, enough: bool
) -> None:
    """Six videos of 24 frames take 487,296 bytes; training and validation of all processes are in the same memory."""
    table = scan(list_videos(store), min_frames=1).usable_table
    parts = table.subset([0, 1, 2, 3, 4]), table.subset([5])
    monkeypatch.setattr(resident, "SHARE_OF_MEMORY", 1.0)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": num_bytes, "SC_PAGE_SIZE": 1}.get)
    with nullcontext() if enough else pytest.raises(ValueError, match=r"too much for .* of memory; use --loading wor"):
        load_resident_frames(*parts, range(5), CPU, "resident", num_processes)


def see_a_gpu(monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int, allocated: int) -> torch.device:
    """Fake what torch reports about the memory of a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    return torch.device("cuda", 0)


@pytest.mark.parametrize(("reserved", "fits"), [(500, False), (500 + 2_000_000, True)])
def test_unused_memory_that_torch_reserved_is_free(
    store: Path, monkeypatch: pytest.MonkeyPatch, reserved: int, fits: bool
) -> None:
    """Six videos of 24 frames take 490,000 bytes."""
    gpu = see_a_gpu(monkeypatch, free=1000, reserved=reserved, allocated=500)
    assert _can_be_resident(scan(list_videos(store), min_frames=1).usable_table, gpu) == fits


def test_if_frames_do_not_fit_on_a_gpu_only_the_batch_is_page_locked(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch rounds page-locked memory up to a power of two, and a gather from it is not page-locked."""
    clips = clips_of(store, PLAIN)
    gpu = see_a_gpu(monkeypatch, free=0, reserved=0, allocated=0)
    loaded = load_resident_frames(clips.table, clips.table, range(6), gpu, "resident")
    assert loaded is not None
    frames, _ = loaded
    assert {(rows.device, rows.is_pinned()) for rows in frames.rows.values()} == {(CPU, False)}
    expected, empty, pinned = ResidentFrames(clips.table, CPU), torch.empty, list[bool]()

    def empty_without_gpu(shape: tuple[int, ...], *, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return empty(shape, **options)

    frames.device = torch.device("meta")  # there is no GPU to copy to
    kind = next(iter(frames.rows))
    monkeypatch.setattr(torch, "empty", empty_without_gpu)
    moved = frames.frames(kind, torch.tensor([3, 1]), 1)
    same = expected.frames(kind, torch.tensor([3, 1]), 1)
    assert pinned == [True, False]
    assert [plane.shape for plane in moved.planes] == [plane.shape for plane in same.planes]
    assert moved.planes[0].device.type == "meta"
