"""Fixtures that every test may use."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import sync_playwright
from rich.console import Console

from v3s import PretrainConfig, pretrain
from v3s.data.synthetic import make_clips
from v3s.protocols.finetune import FinetuneConfig
from v3s.protocols.probe import ProbeConfig, probe
from v3s.train.callbacks import Callback
from v3s.train.progress import Progress
from v3s.vectors.embed import EmbedConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread per process: results are exact for a given number of threads, and tests run in parallel."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the results of scans in tests out of the cache of the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and split lists next to the checkout.

    Skips where it is absent; on CI its absence is a failure.
    """
    if not (SHARED / "data").is_dir():
        message = f"real videos not found: {SHARED / 'data'} does not exist"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return SHARED


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 small generated videos in 8 class folders, 40 frames of 48 x 64 pixels."""
    folder = tmp_path_factory.mktemp("videos")
    make_clips(folder, num_videos=16, num_frames=40, height=48, width=64)
    return folder


@pytest.fixture(scope="session")
def labelled_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train`` (16 videos) and ``test`` (8) of 8 classes; 20 frames of 32 x 48 pixels."""
    folder = tmp_path_factory.mktemp("labelled")
    for part, num_videos, seed in (("train", 16, 1), ("test", 8, 2)):
        make_clips(folder / part, num_videos=num_videos, num_frames=20, height=32, width=48, seed=seed)
    return folder


@pytest.fixture(scope="session")
def small_pretraining(small_videos: Path) -> PretrainConfig:
    """A pre-training on `small_videos` that takes seconds, with a checkpoint after every step; tests set ``out``."""
    return PretrainConfig(
        data=str(small_videos), out="", backbone="r3d", width=0.125, task="ts", clip_frames=8, clip_size=32, epochs=2,
        batch_size=4, validation_videos=4, workers=0, checkpoint_seconds=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def pretrained(small_pretraining: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `small_pretraining`, which tests only read."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    pretrain(replace(small_pretraining, out=str(out)), console=Console(quiet=True))
    return out


@pytest.fixture(scope="session")
def small_finetuning(labelled_videos: Path) -> FinetuneConfig:
    """A fine-tuning on `labelled_videos` that takes seconds, from random weights; tests set ``out``."""
    return FinetuneConfig(
        data=str(labelled_videos), out="", backbone="random:r3d@0.125", clip_frames=8, clip_size=32, epochs=2,
        batch_size=4, validation_videos=4, workers=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_embedding(small_videos: Path) -> EmbedConfig:
    """An embedding of `small_videos` with random weights; tests set ``out``."""
    return EmbedConfig(
        data=str(small_videos), out="", backbone="random:r3d@0.125", clip_frames=8, clip_size=32, workers=0,
        device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="session")
def foundations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of small models of Hugging Face with random weights, as transformers writes them, by architecture.

    Clips have 4 frames (16 for image models) of 32 x 32 pixels; tests only read them.
    """
    transformers: Any = import_module("transformers")
    sizes: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    usual = {**sizes, "intermediate_size": 32, "image_size": 32}
    text = {**usual, "vocab_size": 9, "max_position_embeddings": 5}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    configs = {
        "vjepa2": transformers.VJEPA2Config(**sizes, **predictor, crop_size=32, frames_per_clip=4),
        "videomae": transformers.VideoMAEConfig(**usual, num_frames=4, use_mean_pooling=False),
        "clip": transformers.CLIPConfig(vision_config=usual, text_config=text),
        "clip_vision_model": transformers.CLIPVisionConfig(**usual),
        "dinov2": transformers.Dinov2Config(**sizes, image_size=64),
        "vit": transformers.ViTConfig(**usual),
    }
    preprocessor = {
        "do_resize": True, "size": {"shortest_edge": 36}, "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    folders = {}
    transformers.utils.logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind, config in configs.items():
            folders[kind] = tmp_path_factory.mktemp(kind)
            transformers.AutoModel.from_config(config).save_pretrained(folders[kind])
            (folders[kind] / "preprocessor_config.json").write_text(json.dumps(preprocessor))
            (folders[kind] / "README.md").write_text(f"---\nlicense: apache-2.0\ntags:\n- {kind}\n---\n# A model\n")
    return folders


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; without it, skips."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed, also not by .ci/run")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file may grow above a few bytes; as on a full disk, it is opened without an error."""

    @contextmanager
    def limit(num_bytes: int) -> Iterator[None]:
        before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """A context in which a training ends with an exception after a number of steps, without a last checkpoint."""

    @contextmanager
    def die_after(num_steps: int) -> Iterator[None]:
        left = iter(range(num_steps))

        def die(self: Progress, *arguments: object) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Progress, "step", die)
            with pytest.raises(KeyboardInterrupt):
                yield

    return die_after


class _StopAt(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step(self, step: int, values: dict[str, float]) -> None:
        if step == self._step:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def stop_at() -> Callable[[int], Callback]:
    """A callback that presses Ctrl-C when a number of steps is done."""
    return _StopAt


@pytest.fixture(scope="module")
def recognizer(probing: ProbeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The linear recognizer that a module's own ``probing`` saves."""
    folder = tmp_path_factory.mktemp("recognizers") / "linear"
    probe(replace(probing, save=str(folder)), console=Console(quiet=True))
    return folder
