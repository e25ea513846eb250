"""``v3s probe``: a linear classifier and nearest neighbours on frozen features.

Much faster than fine-tuning, and a more direct measure of the features themselves. A control with shuffled labels shows
that nothing leaks from the test videos.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import inf, sqrt
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from v3s.features.encoder import LAST, Feature, Pool
from v3s.features.saved import refuse_foundation
from v3s.features.source import open_source
from v3s.files.text import counted, error_text, print_table, say, share_text, short_repr, text_table
from v3s.files.writing import write_json
from v3s.options import require_files, require_folders, require_positive
from v3s.protocols.classify import (
    FEW_LABELS_C,
    few_label_subset,
    knn_predict,
    linear_probe,
    logistic_regression,
    top_5_accuracy,
    top_k,
)
from v3s.protocols.errors import critical_value, is_above, standard_error
from v3s.protocols.labelled.features import FeatureOptions, LabelledVectors, labelled_vectors
from v3s.protocols.labelled.parts import Parts, report_chance
from v3s.recognizers.linear import require_own_folder, save_linear
from v3s.vectors.description import Description, read_description


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(FeatureOptions):
    """Classify frozen features: a linear probe and nearest neighbours, also with few labels.

    Attributes:
        save: Folder for the linear classifier with its network, a recognizer that v3s predict applies to other videos.
            If this command divided the videos, it is fitted on all of them.

    More options:
        stage: Stage of the backbone that the vectors come from; last is the deepest (conv5 of the built-in networks).
        pool: mean averages the stage over time and space; max applies 2 x 2 max pooling in space.
        k: Number of neighbours that vote.
        few_labels: Labels per class in the few-label runs; a number larger than the smallest class is skipped.
        repeats: Random draws per few-label run, and of shuffled labels.
    """

    stage: str = LAST
    pool: Pool = "mean"
    k: int = 20
    few_labels: tuple[int, ...] = (1, 5, 10)
    repeats: int = 5
    save: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "k", "repeats")
        require_files(self, out=".json")
        require_folders(self, "save")
        if any(number < 1 for number in self.few_labels):
            raise ValueError(f"few_labels is {self.few_labels}; each number must be more than 0")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracies on the test videos, in [0, 1].

    Attributes:
        top_1: the class is the most probable one.
        top_5: the class is among the five most probable ones; None of five classes or fewer.
        standard_error: standard error of top-1 over groups of videos.
        hits: whether each test video's class is the most probable one, (M,).
    """

    top_1: float
    top_5: float | None
    standard_error: float
    hits: tuple[bool, ...]
    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class Draws:
    """Linear probes on labels that were drawn several times.

    Attributes:
        num_draws: number of draws.
        mean: mean top-1 accuracy over the draws.
        standard_error: standard error of the mean over the draws; None after a single draw.
    """

    num_draws: int
    mean: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class FewLabels(Draws):
    """Linear probes on a few labels of each class; a single draw if it takes all labels.

    Attributes:
        per_class: labels of each class.
    """

    per_class: int


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How well frozen features are classified.

    Attributes:
        num_train: number of training videos.
        num_test: number of test videos; all of them count.
        num_unknown: test videos whose class has no training videos; they count as wrong.
        num_classes: number of classes.
        dimension: length of a vector.
        linear: accuracy of the linear probe.
        c: its inverse penalty, chosen on training videos.
        neighbours: accuracy of the nearest neighbours.
        k: neighbours that vote.
        few_labels: accuracies of linear probes with few labels.
        shuffled: linear probes on shuffled labels, with the same penalty; must be near chance, otherwise data leaks.
            One shuffle says little: videos of a class resemble each other, so all of them are right or wrong together.
        chance: accuracy of a uniform guess.
        majority: accuracy of always predicting the most frequent training class.
        minutes: total duration.
    """

    num_train: int
    num_test: int
    num_unknown: int
    num_classes: int
    dimension: int
    linear: Accuracy
    c: float
    neighbours: Accuracy
    k: int
    few_labels: tuple[FewLabels, ...]
    shuffled: Draws
    chance: float
    majority: float
    minutes: float


def probe(config: ProbeConfig, *, console: Console | None = None) -> ProbeResult:
    """Train classifiers on the training videos' mean clip features and test them on the test videos.

    Args:
        config: which network, which videos, which feature.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the backbone or stage does not exist, a part of the videos is empty or has no labels, or the
            network's output contains NaN or infinity.
    """
    started = time.monotonic()
    console = console or Console()
    if config.save is not None:
        require_own_folder(Path(config.save))
        refuse_foundation(_stored(config).backbone if config.backbone is None else config.backbone)
    found = labelled_vectors(config, Feature(config.stage, config.pool), console=console, divides=True)
    result = run_probes(found.train, found.test, found.parts, config, started=started, console=console)
    print_table(console, _table(result, found.parts))
    baseline = max(result.chance, result.majority)
    say(console, f"{control_sentence(result.shuffled, baseline, result.num_test)}; took {60 * result.minutes:.1f} s")
    report_chance(found.parts, "linear probe", result.linear.top_1, baseline, result.linear.standard_error, console)
    if config.out is not None:
        write_json(Path(config.out), _description(config, found, result))
    if config.save is not None:
        _save(config, Path(config.save), found, result, console)
    return result


def control_sentence(shuffled: Draws, baseline: float, num_test: int) -> str:
    """Say whether probes on shuffled labels are near chance, as by `is_above` over the draws.

    Args:
        shuffled: their accuracies.
        baseline: what is right without looking, in [0, 1].
        num_test: number of test videos.
    """
    error, number = shuffled.standard_error or 0.0, shuffled.num_draws
    if is_above(shuffled.mean, baseline, error=error, num_scores=number * num_test, num_groups=number):
        judged = "better: labels of the test videos may leak into the training"
    elif critical_value(number) == inf:
        judged = f"{counted(number, 'draw')} cannot show a leak, --repeats 5 can"
    else:
        judged = "no better, as it should be"
    found = f"shuffled labels: {share_text(shuffled.mean, error)}"
    return f"{found}, where one answer to all, or guessing, gets {baseline:.1%} ({judged})"


def _stored(config: ProbeConfig) -> Description:
    """What the stored vectors are of."""
    return read_description(Path(str(config.vectors)))


def _save(config: ProbeConfig, folder: Path, found: LabelledVectors, result: ProbeResult, console: Console) -> None:
    """Save a linear classifier with its network: of all labelled videos if they were divided here, else the probe."""
    parts = found.parts
    vectors, labels, groups, whose = found.train, parts.train_labels, parts.train_groups, ""
    if parts.is_divided:
        whose = f", fitted on all {len(labels) + len(parts.test_labels):,} labelled {parts.test.noun}s"
        vectors, labels = torch.cat([vectors, found.test]), torch.cat([labels, parts.test_labels])
        if groups is not None:  # the parts share none
            groups = np.concatenate([groups, parts.test_groups.numpy() + groups.max() + 1])
    noun = parts.train.noun
    calibration = save_linear(
        folder,
        open_source(found.backbone, seed=config.seed if config.vectors is None else _stored(config).seed),
        found.space,
        vectors,
        labels,
        classes=parts.classes,
        c=result.c,
        groups=groups,
        seed=config.seed,
        results={name: getattr(result.linear, name) for name in ("top_1", "top_5", "standard_error")}
        | {name: getattr(result, name) for name in ("chance", "majority", "num_test")}
        | {"num_train_tested": result.num_train, "num_test_groups": parts.num_test_groups, "noun": parts.test.noun},
        noun=noun,
        span_seconds=parts.train.span_seconds,
    )
    say(
        console,
        f"saved in {folder}{whose}; calibration: {calibration or f'none, since there are too few {noun}s'}",
    )


def run_probes(
    train: Tensor, test: Tensor, parts: Parts, config: ProbeConfig, *, started: float, console: Console
) -> ProbeResult:
    """Run all probes on features.

    Args:
        train: features of the training videos, shape (N, D).
        test: features of the test videos, shape (M, D).
        parts: their labels.
        config: neighbours, few-label runs and seed.
        started: start of the work, as monotonic time.
        console: where to report which runs are skipped.
    """
    labels, k = parts.train_labels, min(config.k, len(train))
    if k < config.k:
        say(console, f"k is reduced from {config.k} to {k}, the number of training {parts.train.noun}s")
    generator = torch.Generator().manual_seed(config.seed)
    fitted = linear_probe(train, labels, test, generator=generator, groups=parts.train_groups)
    if fitted.validation_accuracy is None:
        say(console, f"C is {fitted.c:g}: too few labels or groups to choose it on held-out ones")
    few = [_few_labels(train, test, parts, number, config) for number in _runnable(parts, config, console)]
    return ProbeResult(
        num_train=len(train),
        num_test=len(test),
        num_unknown=parts.num_unknown,
        num_classes=len(parts.classes),
        dimension=train.shape[1],
        linear=_accuracy(fitted.probabilities, parts),
        c=fitted.c,
        neighbours=_accuracy(knn_predict(test, train, labels, k), parts),
        k=k,
        few_labels=tuple(few),
        shuffled=_shuffled(train, test, parts, fitted.c, config, generator),
        chance=parts.chance,
        majority=parts.majority,
        minutes=(time.monotonic() - started) / 60,
    )


def _accuracy(probabilities: Tensor, parts: Parts) -> Accuracy:
    hits = top_k(probabilities, parts.test_labels, 1)
    top_5, error = top_5_accuracy(probabilities, parts.test_labels), standard_error(hits, parts.test_groups)
    return Accuracy(float(hits.mean()), top_5, error, tuple(hits.bool().tolist()))


def _runnable(parts: Parts, config: ProbeConfig, console: Console) -> Iterable[int]:
    """Yield the few-label runs for which every class has enough videos."""
    smallest = int(torch.bincount(parts.train_labels).min())
    for number in config.few_labels:
        if number <= smallest:
            yield number
        else:
            say(
                console,
                f"skipped: run with {counted(number, 'label')} per class, because the smallest class has "
                f"{counted(smallest, parts.train.noun)} for training",
            )


def _few_labels(train: Tensor, test: Tensor, parts: Parts, per_class: int, config: ProbeConfig) -> FewLabels:
    generator = torch.Generator().manual_seed(config.seed)
    takes_all = per_class * len(parts.classes) == len(train)
    accuracies = []
    for _ in range(1 if takes_all else config.repeats):
        rows = few_label_subset(parts.train_labels, per_class, generator)
        accuracies.append(_top_1(train[rows], parts.train_labels[rows], test, parts, FEW_LABELS_C))
    return FewLabels(*_summary(accuracies), per_class)


def _shuffled(
    train: Tensor, test: Tensor, parts: Parts, c: float, config: ProbeConfig, generator: torch.Generator
) -> Draws:
    orders = [torch.randperm(len(train), generator=generator) for _ in range(config.repeats)]
    return Draws(*_summary([_top_1(train, parts.train_labels[order], test, parts, c) for order in orders]))


def _top_1(train: Tensor, labels: Tensor, test: Tensor, parts: Parts, c: float) -> float:
    probabilities = logistic_regression(train, labels, test, c, len(parts.classes))
    return float(top_k(probabilities, parts.test_labels, 1).mean())


def _summary(accuracies: Sequence[float]) -> tuple[int, float, float | None]:
    """Their number, their mean and its standard error."""
    draws = torch.tensor(accuracies, dtype=torch.float64)
    error = float(draws.std() / sqrt(len(draws))) if len(draws) > 1 else None
    return len(draws), float(draws.mean()), error


def _table(result: ProbeResult, parts: Parts) -> Table:
    """Return the accuracies next to chance."""
    probes = {
        f"linear (C = {result.c:g})": result.linear,
        f"{result.k} nearest neighbours": result.neighbours,
    }
    rows = [
        (name, f"{one.top_1:.1%}", error_text(one.standard_error), "" if one.top_5 is None else f"{one.top_5:.1%}")
        for name, one in probes.items()
    ]
    drawn: dict[str, Draws] = {"linear, shuffled labels": result.shuffled}
    drawn |= {f"linear, labels per class: {run.per_class}": run for run in result.few_labels}
    for name, draws in drawn.items():
        error = error_text(draws.standard_error)
        rows.append((f"{name} (draws: {draws.num_draws})", f"{draws.mean:.1%}", error, ""))
    rows.append(("chance", f"{result.chance:.1%}", "", f"{5 * result.chance:.1%}"))
    rows.append(("most frequent class", f"{result.majority:.1%}", "", ""))
    counts = {
        f"test {parts.test.noun}": result.num_test,
        f"training {parts.train.noun}": result.num_train,
        "class": result.num_classes,
    }
    title = ", ".join(counted(number, noun) for noun, number in counts.items())
    width = 3 if result.linear.top_5 is None else 4
    return text_table(title, ("", "top-1", "standard error", "top-5")[:width], [row[:width] for row in rows])


def _description(config: ProbeConfig, found: LabelledVectors, result: ProbeResult) -> dict[str, object]:
    parts = found.parts
    return {
        "backbone": found.backbone,
        "fingerprint": found.space.weights,
        "stage": found.space.feature.stage,
        "pool": config.pool,
        "view": asdict(found.space.view),
        "seed": config.seed,
        "train_source": parts.train_source,
        "test_source": parts.test_source,
        **parts.to_json(),
        **asdict(result),
    }
