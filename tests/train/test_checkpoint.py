"""Checkpoints and sets of weights: after a kill, on a full disk or after damage, something intact can be loaded."""

import io
import os
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s.backbones import create_backbone
from v3s.features.saved import Trained, describe_trained, load_pretext_model, save_trained
from v3s.files.weights import fingerprint
from v3s.files.writing import NEXT, CheckpointError, SaveError, finish_together
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import get_task
from v3s.train.checkpoint import PREVIOUS, load_checkpoint, load_newest_checkpoint, save_checkpoint, saved_epoch
from v3s.train.run import says_how_to_resume
from v3s.train.stop import TrainingStoppedError

SAMPLING = Sampling(clip_frames=4, clip_size=16, canvas_size=32)


def state(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    return {"model": {"weight": torch.rand(500, generator=generator)}, "epoch": number}


def dies(work: Callable[[], object], step: int) -> bool:
    """Do the work in a child process that is killed at its ``step``-th disk operation; returns whether it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn about a fork with threads running
        child = os.fork()
    if child == 0:
        remaining = iter(range(step))

        def killing(function: Any) -> Any:
            def touch(*arguments: Any, **options: Any) -> Any:
                if next(remaining, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return touch

        class HalfWritten:
            """A file in which a kill leaves only half of the current write."""

            def __init__(self, file: Any) -> None:
                self.file = file

            def __enter__(self) -> "HalfWritten":
                return self

            def __exit__(self, *error: object) -> None:
                self.file.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def write(self, data: Any) -> None:
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                killing(lambda: None)()
                self.file.write(data[len(data) // 2 :])

        opened = Path.open
        Path.open = killing(lambda *args, **options: HalfWritten(opened(*args, **options)))  # type: ignore[method-assign]
        Path.write_bytes = lambda path, data: path.open("wb").write(data)  # type: ignore[method-assign, assignment]
        Path.replace = killing(Path.replace)  # type: ignore[method-assign]
        os.fsync = killing(os.fsync)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_point_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Before, during and after the write, and before and after each flush and rename."""
    loaded = []
    for step in range(30):
        path = tmp_path / str(step) / "last.pt"
        save_checkpoint(path, state(1))
        save_checkpoint(path, state(2))
        killed = dies(lambda path=path: save_checkpoint(path, state(3)), step)  # type: ignore[misc]
        newest, damage = load_newest_checkpoint(path)
        assert damage is None
        assert torch.equal(newest["model"]["weight"], state(newest["epoch"])["model"]["weight"])
        loaded.append(newest["epoch"])
        save_checkpoint(path, state(4))
        assert load_checkpoint(path)["epoch"] == 4
        assert load_checkpoint(path.with_name(PREVIOUS))["epoch"] in (2, 3)
        if not killed:
            break
    assert step >= 8
    assert loaded == sorted(loaded)
    assert set(loaded) == {2, 3}  # the previous one, then the new one, never an older one


def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path) -> None:
    path, generator = tmp_path / "last.pt", np.random.default_rng(0)
    save_checkpoint(path, state(1))
    save_checkpoint(path, state(2))
    whole = path.read_bytes()
    for number in range(50):
        damaged = bytearray(whole)
        place = int(generator.integers(len(whole)))
        if number % 2:
            damaged[place] ^= 1 << int(generator.integers(8))
        else:
            del damaged[place:]
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.pt is damaged: its .* bytes do not match their checksum"):
            load_checkpoint(path)
        newest, damage = load_newest_checkpoint(path)
        assert newest["epoch"] == 1
        assert damage is not None
        assert "damaged" in damage
    path.with_name(PREVIOUS).unlink()
    with pytest.raises(CheckpointError, match="there is no earlier checkpoint: start again with --overwrite"):
        load_newest_checkpoint(path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, state(1))
    size, (soft, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(20):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size * number // 20, hard))
            with pytest.raises(SaveError, match=r"last\.pt cannot be written: File too large"):
                save_checkpoint(path, state(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert load_checkpoint(path)["epoch"] == 1
        assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    save_checkpoint(tmp_path / "last.pt", {"model": Payload()})
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "executed").exists()


def model(seed: int) -> PretextModel:
    return PretextModel(create_backbone("r3d", 0.125, seed=seed), get_task("ts"), seed=seed)


def save(folder: Path, seed: int) -> None:
    task, results = get_task("ts"), {"epoch": seed}
    trained = Trained(kind="pretrained", backbone="r3d", width=0.125, task=task, sampling=SAMPLING, results=results)
    save_trained(folder, model(seed), trained)


def test_a_kill_never_mixes_the_weights_of_two_epochs(tmp_path: Path) -> None:
    """Backbone, heads and description are from one epoch, whenever the save of the second epoch is killed."""
    wanted = {seed: fingerprint(model(seed).state_dict()) for seed in (1, 2)}
    loaded = []
    for step in range(60):
        folder = tmp_path / str(step)
        save(folder, 1)
        killed = dies(lambda folder=folder: save(folder, 2), step)  # type: ignore[misc]
        network, trained = load_pretext_model(folder)
        assert fingerprint(network.state_dict()) == wanted[trained.results["epoch"]]
        loaded.append(trained.results["epoch"])
        finish_together(folder)
        assert describe_trained(folder).results["epoch"] == loaded[-1]
        assert not (folder / NEXT).exists()
        if not killed:
            break
    assert step >= 20
    assert loaded == sorted(loaded)
    assert set(loaded) == {1, 2}


def test_weights_that_their_description_does_not_know_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 2)
    (tmp_path / "b/backbone.safetensors").replace(tmp_path / "a/backbone.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged, or not the weights described by the config\.json next to it"):
        load_pretext_model(tmp_path / "a")


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("{}", "results.epoch is missing"),
        ('{"results": 3}', "results.epoch is missing"),
        ('{"results": {"epoch": "3"}}', "results.epoch is"),
        ('{"results": {"epoch": -1}}', "results.epoch is -1"),
        ("{", "JSON"),
    ],
)
@pytest.mark.parametrize(
    "stopped", [TrainingStoppedError("stopped", signal.SIGTERM), KeyboardInterrupt(), SystemExit(143)]
)
def test_nothing_hides_how_to_resume(tmp_path: Path, written: str, wrong: str, stopped: BaseException) -> None:
    """Neither a forged description, nor a second signal."""
    (tmp_path / "config.json").write_text(written)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(CheckpointError, match=wrong):
        saved_epoch(tmp_path)
    told = io.StringIO()
    with (
        pytest.raises(type(stopped)),
        says_how_to_resume("pretrain", str(tmp_path), Console(file=told, width=1000)),
    ):
        raise stopped
    assert wrong in told.getvalue()
    assert told.getvalue().endswith(f"resume with: v3s pretrain --out {tmp_path} --resume\n")


def test_nothing_is_said_of_resuming_what_has_not_begun(tmp_path: Path) -> None:
    told = io.StringIO()
    with (
        pytest.raises(KeyboardInterrupt),
        says_how_to_resume("pretrain", str(tmp_path), Console(file=told, width=1000)),
    ):
        raise KeyboardInterrupt
    assert told.getvalue() == ""


def test_a_description_that_is_no_file_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    (tmp_path / "config.yaml").write_text("")
    told = io.StringIO()
    with (
        pytest.raises(KeyboardInterrupt),
        says_how_to_resume("pretrain", str(tmp_path), Console(file=told, width=1000)),
    ):
        raise KeyboardInterrupt
    assert told.getvalue().startswith("its weights cannot be used: ")
