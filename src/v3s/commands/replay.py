"""``v3s replay``: the batch that gave a NaN or an infinity once more, clip by clip and term by term."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from v3s.backbones.device import choose_compute
from v3s.commands.pretrain import PretrainConfig, pretraining, set_up_pretraining
from v3s.data.clips import PretextClips, SampleKey
from v3s.data.loading import load
from v3s.features.saved import kind_of_run
from v3s.files.text import as_text, say
from v3s.files.writing import read_json
from v3s.protocols.finetune import FinetuneConfig, finetuning, set_up_finetuning
from v3s.protocols.recognition import LabelledClips
from v3s.train.distributed import Processes
from v3s.train.finite import BadBatch, load_bad_batch
from v3s.train.loop import freeze_batch_norm
from v3s.train.run import CONFIG, MANIFEST, NONFINITE, config_of_run
from v3s.train.training import Training

_Options = TypeVar("_Options", PretrainConfig, FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Run the batch that gave a NaN or an infinity again, clip by clip, and report where it arose.

    Attributes:
        run: Folder of the run, as given to v3s pretrain --out.
        device: auto, cpu, cuda or cuda:N. Default: the run's own.
    """

    run: Annotated[str, "RUN"]
    device: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayedClip:
    """What one clip gave.

    Attributes:
        video: its file.
        first: the first thing that was not finite: "input", a stage, "output", a term of the loss; None if all was.
        terms: the objective's terms of this clip alone, out of the whole batch's forward pass.
    """

    video: str
    first: str | None
    terms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a batch gave.

    Attributes:
        batch: what it is, and where the training stood.
        clips: what each clip gave, process by process.
        loss: the mean over the batch.
        bad_gradients: names of the parameters whose gradient is not finite.
    """

    batch: BadBatch
    clips: list[ReplayedClip]
    loss: float
    bad_gradients: list[str]


@dataclass(frozen=True, slots=True)
class _Setting:
    """The training that met the batch, as it was."""

    training: Training
    clips: PretextClips | LabelledClips
    whole_batch_norm: bool


def replay(config: ReplayConfig, *, backbone: nn.Module | None = None, console: Console | None = None) -> Replay:
    """Run the batch that stopped a training through the weights that it met; changes nothing in the run's folder.

    Args:
        config: which run, and where to compute.
        backbone: the network, where it is one of your own.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the run met no such batch, or its videos have changed.
    """
    console, run = console or Console(), Path(config.run)
    if not (run / CONFIG).is_file():
        raise ValueError(f"{run} is not a training run ({CONFIG} is missing); give the folder that was passed as --out")
    if not (run / NONFINITE).is_dir():
        raise ValueError(f"{run} has no batch to replay: none of its losses or gradients was NaN or infinite")
    setting = _set_up(run, config, backbone, console)
    batch = load_bad_batch(run / NONFINITE, setting.training.model)
    keys = [(batch.epoch, int(sample["index"])) for sample in batch.samples]
    if [setting.clips.describe(key) for key in keys] != batch.samples:
        raise ValueError(f"{run}: the videos have changed since: this is not the batch that the run met")
    parts = 1 if setting.whole_batch_norm else batch.num_processes
    shares = [keys[part::parts] for part in range(parts)]
    found = [_replay_share(setting, share) for share in shares]
    clips = [clip for clips, _ in found for clip in clips]
    loss = sum(loss for _, loss in found) / parts
    bad = [
        name
        for name, parameter in setting.training.model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    result = Replay(batch, clips, loss, bad)
    _report(result, console)
    return result


def _set_up(run: Path, config: ReplayConfig, backbone: nn.Module | None, console: Console) -> _Setting:
    if kind_of_run(run) == "recognizer":
        return _finetuning(run, config, console)
    return _pretraining(run, config, backbone, console)


def _finetuning(run: Path, config: ReplayConfig, console: Console) -> _Setting:
    job = set_up_finetuning(_options_of(run, FinetuneConfig, config), console)
    return _Setting(finetuning(job), job.train, whole_batch_norm=True)


def _pretraining(run: Path, config: ReplayConfig, backbone: nn.Module | None, console: Console) -> _Setting:
    given = replace(_options_of(run, PretrainConfig, config), loading="workers")
    if ":" in given.backbone and backbone is None:
        raise ValueError(
            f"{run} trained {given.backbone}, code of your own, which is run from Python only: "
            f"v3s.commands.replay(v3s.ReplayConfig(run={str(run)!r}), backbone=your_network())"
        )
    compute = choose_compute(given.device, given.precision)
    job = set_up_pretraining(given, backbone=backbone, compute=compute, processes=Processes(), console=console)
    was_on_gpu = read_json(run / MANIFEST)["compute"].startswith("cuda")
    return _Setting(
        pretraining(job),
        job.train,
        whole_batch_norm=given.batch_norm == "sync" or (given.batch_norm == "auto" and was_on_gpu),
    )


def _options_of(run: Path, kind: type[_Options], config: ReplayConfig) -> _Options:
    """The options that a training was begun with, but for where it is computed now."""
    options = config_of_run(kind, run)
    return replace(options, workers=0, device=config.device or options.device)


class _Said(nn.Module):
    """Stands for a network that has already answered."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, clips: Tensor) -> Any:
        return self.answer


def _replay_share(setting: _Setting, keys: list[SampleKey]) -> tuple[list[ReplayedClip], float]:
    """One process's clips; adds their gradient."""
    training = setting.training
    model, compute = training.model, training.compute
    model.train()
    if training.frozen_batch_norm:
        freeze_batch_norm(model)
    ((_, (clips, labels)),) = load(setting.clips, [keys], num_workers=0, quarantine=None)
    inputs, labels = compute.clips(clips), labels.to(compute.device)
    with compute.autocast(), torch.no_grad():
        stages = model.backbone.forward_stages(inputs)  # type: ignore[union-attr, operator]
    with compute.autocast():
        answer = model(inputs)
        loss = training.objective(_Said(answer), inputs, labels)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    found = []
    for number, key in enumerate(keys):
        part = _part(answer, number)
        terms = training.objective(_Said(part), inputs[number : number + 1], labels[number : number + 1])
        values = {"input": inputs[number], **{name: value[number] for name, value in stages.items()}}
        outputs = part if isinstance(part, tuple) else (part,)
        values |= {"output": torch.cat([output.flatten() for output in outputs]), **terms}
        first = next((name for name, value in values.items() if not value.isfinite().all()), None)
        found.append(
            ReplayedClip(
                str(setting.clips.describe(key)["video"]), first, {name: value.item() for name, value in terms.items()}
            )
        )
    return found, loss.item()


def _part(answer: Any, number: int) -> Any:
    """One clip's answer out of a batch's, which is a tensor or a named tuple of tensors."""
    if isinstance(answer, Tensor):
        return answer[number : number + 1]
    return type(answer)(*(output[number : number + 1] for output in answer))


def _report(result: Replay, console: Console) -> None:
    names = [name for name in result.clips[0].terms if name.startswith("loss")]
    table = Table("clip", "video", "first not finite", *names, title=str(result.batch))
    for number, clip in enumerate(result.clips):
        table.add_row(
            str(number), Text(as_text(clip.video)), clip.first or "-", *(f"{clip.terms[name]:.4g}" for name in names)
        )
    console.print(table)
    bad = result.bad_gradients
    gradient = f"not finite in {len(bad)} tensors, the deepest {bad[-1]}" if bad else "finite"
    say(console, f"loss {result.loss:.4g}; gradient {gradient}")
    if not bad and all(clip.first is None for clip in result.clips):
        say(console, "everything is finite here: the cause was not the batch, but the device or another precision")
