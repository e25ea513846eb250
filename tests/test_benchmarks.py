"""The peers of the benchmarks make our samples, and the GPU script runs on a machine without a GPU."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from v3s.pretext.plan import Labels, Picture, Sampling, plan_clip
from v3s.pretext.task import TASKS
from v3s.video.warp import warp

TASK, SAMPLING = TASKS["v3s"], Sampling()


@pytest.mark.parametrize("label", range(len(TASK.spatial)))
def test_peers_show_the_same_part_of_the_frame(label: int) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    from benchmarks.peers import MEAN, STD, cut_as_torchvision, cut_by_pil, steps_of, two_steps_by_pil

    y, x = np.mgrid[:240, :320]
    waves = np.stack([np.sin(x / 12), np.sin(y / 12), np.sin((x + y) / 17)], axis=-1)  # at most 8.5 levels a pixel
    frame = (127.5 + 100 * waves).round().astype(np.uint8)
    plan = plan_clip(
        TASK,
        Labels(label, 0),
        num_frames=20,
        picture=Picture(320, 240),
        sampling=SAMPLING,
        generator=np.random.default_rng(label),
    )
    steps = steps_of(plan, TASK, SAMPLING, 240, 320)
    ours = warp(torch.from_numpy(frame).permute(2, 0, 1)[None], plan.to_clip, 112, 112, samples=plan.samples)[:, 0]
    exact = torch.from_numpy(np.array(two_steps_by_pil(Image.fromarray(frame), steps))).permute(2, 0, 1)
    assert (exact.float() - ours).abs().mean() < 1.2  # a seventh of a pixel
    for cut in (cut_by_pil, cut_as_torchvision):  # whole pixels: up to one pixel of the canvas off
        clip = cut(frame[None], steps)[:, 0] * STD + MEAN
        assert (clip * 255 - ours).abs().mean() < 9


def test_the_gpu_script_runs_without_a_gpu(
    small_videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "GOALS", gpu.GOALS[:1])
    monkeypatch.setattr(sys, "argv", ["gpu", "--data", str(small_videos), "--device", "cpu", "--quick"])
    gpu.main()
    output = capsys.readouterr().out
    assert "at most 0 levels apart" in output or "at most 1 levels apart" in output
    assert "r3d 8x28, width 0.125; eager; " in output


def test_the_listing_of_files_that_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason="the rows of an engine are Parquet: pip install 'v3s[parquet]'")
    pytest.importorskip("resource", reason="Windows has no such counts")
    from benchmarks import listing

    monkeypatch.setattr(sys, "argv", ["listing", "--files", "1300"])
    listing.main()
    assert "written for the engine, 65 parts: " in capsys.readouterr().out


def test_the_gpu_script_continues_after_a_network_fails(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer videos than a batch has clips."""
    from benchmarks import gpu

    few = tmp_path / "videos.txt"
    few.write_text("".join(f"{path}\n" for path in sorted(small_videos.rglob("*.mp4"))[:4]))
    one_batch = gpu.Bench.one_batch

    def fails_once(bench: gpu.Bench, goal: gpu.Goal, *, compiled: bool) -> float:
        if goal is gpu.GOALS[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return one_batch(bench, goal, compiled=compiled)

    monkeypatch.setattr(gpu, "QUICK", replace(gpu.QUICK, num_videos=None, batch_size=8))
    monkeypatch.setattr(gpu, "GOALS", [gpu.Goal("r3d", 96, None), gpu.Goal("r3d", 112, None)])
    monkeypatch.setattr(gpu.Bench, "one_batch", fails_once)
    monkeypatch.setattr(sys, "argv", ["gpu", "--data", str(few), "--device", "cpu", "--quick"])
    gpu.main()
    output = capsys.readouterr().out
    assert "r3d 8x24, width 0.125; eager; not measured: CUDA out of memory" in output
    assert "r3d 8x28, width 0.125; eager; " in output
