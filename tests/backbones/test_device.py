"""The choice of a device; memory on a CPU, and correct bf16 gradients of short clips, which oneDNN gets wrong."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from v3s.backbones.device import Compute, choose_compute, divide_cores
from v3s.backbones.forms import PadInTime

BF16 = Compute(torch.device("cpu"), bf16=True)


def clips_of(frames: int) -> torch.Tensor:
    return torch.randn(4, 16, frames, 4, 4, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", range(1, 10))
@pytest.mark.parametrize(("taps", "padding"), [(3, 1), (5, 2), (7, 3), (3, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_in_time_changes_no_value(frames: int, taps: int, padding: int, stride: int) -> None:
    convolution = nn.Conv3d(16, 8, (taps, 3, 3), stride, (padding, 1, 1))
    clips = clips_of(frames)
    plain = convolution(clips)
    with PadInTime():
        assert torch.allclose(convolution(clips), plain, atol=1e-5)


@pytest.mark.parametrize("frames", range(1, 5))
@pytest.mark.parametrize("size", [1, 3])
def test_gradients_in_bf16_are_those_in_fp32(frames: int, size: int) -> None:
    convolution = nn.Conv3d(16, 8, (3, size, size), padding=(1, size // 2, size // 2))
    clips = clips_of(frames)
    weights = torch.randn(convolution(clips).shape, generator=torch.Generator().manual_seed(0))
    expected = gradient(convolution, clips, weights)
    for _ in range(3):
        poison = [torch.full((8 * 16 * 3 * size * size,), float("nan")) for _ in range(4)]
        del poison  # so that uninitialised memory contains NaN
        with BF16.autocast():
            actual = gradient(convolution, clips, weights)
        assert (actual - expected).abs().max() < 0.02 * expected.abs().max()


def gradient(convolution: nn.Conv3d, clips: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    convolution.zero_grad()
    (convolution(clips).float() * weights).sum().backward()
    assert convolution.weight.grad is not None
    return convolution.weight.grad.clone()


STEPS = """
import resource, torch
from v3s.backbones.device import divide_cores
divide_cores(0, torch.device("cpu"))
for step in range(12):
    if step == 2:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.zeros(5_000_000) for _ in range(6)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_a_step_reuses_the_memory_of_the_previous_step() -> None:
    """Six tensors of 20 MB per step: 29,297 pages of 4 kB, requested again in each of ten steps unless kept."""
    num_faults = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True).stdout
    assert int(num_faults) < 29_297


def test_a_store_on_a_cpu_needs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that this process keeps its threads
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert divide_cores(None, cpu, training=True, stored=True) == 0
    assert divide_cores(None, cpu, training=True) > 0
    assert divide_cores(3, cpu, training=True, stored=True) == 3
    assert divide_cores(None, gpu, training=True, stored=True) > 0


@pytest.mark.parametrize(("device", "alone", "of_four"), [("cuda", 8, 3), ("cpu", 6, 1)])
def test_processes_of_one_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, device: str, alone: int, of_four: int
) -> None:
    """Twelve cores: each of four processes has three. With a GPU all of them are for workers, on a CPU half of them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert divide_cores(None, torch.device(device), training=True) == alone
    assert divide_cores(None, torch.device(device), training=True, num_processes=4) == of_four


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Simulate a machine with two GPUs of capability 7.5; returns the list of devices that get selected."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("device", "local_rank", "expected"), [("auto", 0, 0), ("auto", 1, 1), ("cuda", 1, 1), ("cuda:0", 1, 0)]
)
def test_each_process_uses_its_own_gpu(
    two_gpus: list[torch.device], device: str, local_rank: int, expected: int
) -> None:
    compute = choose_compute(device, local_rank=local_rank)
    assert compute == Compute(torch.device("cuda", expected), bf16=False)
    assert two_gpus == [compute.device]


@pytest.mark.parametrize(("device", "local_rank"), [("auto", 2), ("cuda", 2), ("cuda:2", 0)])
def test_a_missing_gpu_is_refused(two_gpus: list[torch.device], device: str, local_rank: int) -> None:
    with pytest.raises(ValueError, match=rf"process {local_rank} .* needs cuda:2, but only 2 GPUs can be used"):
        choose_compute(device, local_rank=local_rank)
    assert not two_gpus


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:-1", "cuda:x", ""])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="it must be auto, cpu, cuda, cuda:N or mps"):
        choose_compute(device)


@pytest.mark.parametrize(
    ("able", "bf16"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "arm64"}, False),
    ],
)
def test_a_cpu_computes_in_bf16_if_it_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, str | bool], bf16: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert choose_compute("cpu") == Compute(torch.device("cpu"), bf16=bf16)
    assert choose_compute("cpu", "bf16").bf16
    assert not choose_compute("cpu", "fp32").bf16


def test_a_mac_s_gpu_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_compute("mps") == Compute(torch.device("mps"), bf16=False)
    with pytest.raises(ValueError, match="device 'mps' computes in fp32; bf16 was requested"):
        choose_compute("mps", "bf16")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"'mps' was requested, but torch .* finds no Apple GPU here"):
        choose_compute("mps")
