"""``v3s replay``: repeat the batch that gave a NaN or infinite value, clip by clip and term by term."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones.device import choose_compute
from v3s.commands.pretrain import PretrainConfig, pretraining, set_up_pretraining
from v3s.data.clips import PretextClips, SampleKey, share_of
from v3s.data.loading import load
from v3s.features.saved import kind_of_run
from v3s.files.reading import read_value
from v3s.files.text import counted, print_table, say, text_table
from v3s.options import CheckedOptions
from v3s.protocols.finetune import FinetuneConfig, finetuning, set_up_finetuning
from v3s.protocols.recognition import LabelledClips
from v3s.train.distributed import Processes
from v3s.train.finite import BadBatch, load_bad_batch
from v3s.train.loop import set_training_mode
from v3s.train.run import CONFIG, MANIFEST, NONFINITE, config_of_run
from v3s.train.training import Training

_Options = TypeVar("_Options", PretrainConfig, FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(CheckedOptions):
    """Run the batch that gave a NaN or infinite value again, clip by clip, and report where it first appears.

    Attributes:
        run: Folder of the run, as given to --out.
        device: auto, cpu, cuda, cuda:N or mps. Default: the device of the run.
    """

    run: Annotated[str, "RUN"]
    device: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayedClip:
    """The result for one clip.

    Attributes:
        video: its file.
        first: the first non-finite value: "input", a stage, "output" or a term of the loss; None if all are finite.
        terms: the terms of the objective for this clip alone, without a contrast with others, from the forward pass of
            the whole batch.
    """

    video: str
    first: str | None
    terms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Replay:
    """The result for a batch.

    Attributes:
        batch: the batch, with its epoch and step.
        clips: the result for each clip, process by process.
        loss: the mean over the batch.
        bad_gradients: names of the parameters whose gradient is not finite.
    """

    batch: BadBatch
    clips: list[ReplayedClip]
    loss: float
    bad_gradients: list[str]


@dataclass(frozen=True, slots=True)
class _Setting:
    """The training as it was when it met the batch."""

    training: Training
    clips: PretextClips | LabelledClips
    whole_batch_norm: bool
    together: int = 1


def replay(config: ReplayConfig, *, backbone: nn.Module | None = None, console: Console | None = None) -> Replay:
    """Repeat the batch that stopped a training, with the weights of that moment; changes nothing in the run's folder.

    Args:
        config: the run and the device.
        backbone: the network, if it is your own.
        console: where to print; the terminal by default.

    Raises:
        ValueError: the run did not stop at such a batch, or its videos have changed.
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
        raise ValueError(f"{run}: the videos have changed since, so this is not the batch that stopped the run")
    parts = 1 if setting.whole_batch_norm else batch.num_processes
    shares = [share_of(keys, part, parts, together=setting.together) for part in range(parts)]
    results = [_replay_share(setting, share) for share in shares]
    clips = [clip for clips, _ in results for clip in clips]
    loss = sum(loss for _, loss in results) / parts
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
    options = replace(_options_of(run, PretrainConfig, config), loading="workers", out=str(run), resume=True)
    if ":" in options.backbone and backbone is None:
        raise ValueError(
            f"{run} trained {options.backbone}, your own code, which can be replayed only from Python: "
            f"v3s.replay(v3s.ReplayConfig(run={str(run)!r}), backbone=your_network())"
        )
    compute = choose_compute(options.device, options.precision)
    job = set_up_pretraining(options, backbone=backbone, compute=compute, processes=Processes(), console=console)
    was_on_gpu = read_value(run / MANIFEST, "compute", str).startswith("cuda")
    return _Setting(
        pretraining(job),
        job.train,
        whole_batch_norm=options.batch_norm == "sync" or (options.batch_norm == "auto" and was_on_gpu),
        together=options.clips_together,
    )


def _options_of(run: Path, kind: type[_Options], config: ReplayConfig) -> _Options:
    """The options that a training was started with, except for workers and device."""
    options = config_of_run(kind, run)
    return replace(options, workers=0, device=config.device or options.device)


class _FixedOutput(nn.Module):
    """Stands in for a network whose output is already known."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, clips: Tensor) -> Any:
        return self.output


def _replay_share(setting: _Setting, keys: list[SampleKey]) -> tuple[list[ReplayedClip], float]:
    """Replay the clips of one process; adds their gradient."""
    training = setting.training
    model, compute = training.model, training.compute
    set_training_mode(model, training.frozen)
    ((_, (clips, labels)),) = load(setting.clips, [keys], num_workers=0, quarantine=None)
    inputs, labels = compute.clips(clips), labels.to(compute.device)
    with compute.autocast(), torch.no_grad():
        stages = model.backbone.forward_stages(inputs)  # type: ignore[union-attr, operator]
    with compute.autocast():
        output = model(inputs)
        loss = training.objective(_FixedOutput(output), inputs, labels)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    replayed = []
    for number, key in enumerate(keys):
        part = _part(output, number)
        terms = training.validation_objective(
            _FixedOutput(part), inputs[number : number + 1], labels[number : number + 1]
        )
        values = {"input": inputs[number], **{name: value[number] for name, value in stages.items()}}
        heads = part if isinstance(part, tuple) else (part,)
        values |= {"output": torch.cat([head.flatten() for head in heads]), **terms}
        first = next((name for name, value in values.items() if not value.isfinite().all()), None)
        replayed.append(
            ReplayedClip(
                str(setting.clips.describe(key)["video"]), first, {name: value.item() for name, value in terms.items()}
            )
        )
    return replayed, loss.item()


def _part(output: Any, number: int) -> Any:
    """The output for one clip, from that of a batch: a tensor or a named tuple of tensors."""
    if isinstance(output, Tensor):
        return output[number : number + 1]
    return type(output)(*(head[number : number + 1] for head in output))


def _report(result: Replay, console: Console) -> None:
    names = [name for name in result.clips[0].terms if name.startswith("loss")]
    rows = [
        (str(number), clip.video, clip.first or "-", *(f"{clip.terms[name]:.4g}" for name in names))
        for number, clip in enumerate(result.clips)
    ]
    print_table(
        console, text_table(str(result.batch), ("clip", "video", "first non-finite", *names), rows, num_names=3)
    )
    bad = result.bad_gradients
    gradient = f"not finite in {counted(len(bad), 'tensor')}, the deepest is {bad[-1]}" if bad else "finite"
    say(console, f"loss {result.loss:.4g}; gradient {gradient}")
    if not bad and all(clip.first is None for clip in result.clips):
        say(console, "everything is finite here: the cause was not the batch but the device or the precision")
