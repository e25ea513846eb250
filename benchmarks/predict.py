"""Predictions for stored vectors: ``python -m benchmarks.predict [--quick]``.

The folder is as ``v3s embed`` writes it, one vector of 512 numbers per video in float16, and the recognizer has 101
classes. The first row is the answers alone, as `v3s serve` sorts by them; the second is the whole of ``v3s predict``,
with names, times and three classes of each vector in a CSV file.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.machine import describe_machine
from benchmarks.search import DIMENSION, made_entries, make_vectors
from v3s.recognizers.classifier import Classifier, Recognition
from v3s.recognizers.of_vectors import predict_vectors, probabilities_of
from v3s.recognizers.predictions import write_predictions
from v3s.vectors.collection import Vectors

TARGET = 100_000
NUM_VECTORS, QUICK_VECTORS, NUM_CLASSES, NUM_NAMED, ROUNDS = 1_000_000, 100_000, 101, 3, 3


def classifier_of(vectors: Vectors) -> Classifier:
    """A classifier with random weights for the network of a collection."""
    layer = nn.Linear(DIMENSION, NUM_CLASSES)
    nn.init.normal_(layer.weight, std=3.0, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(layer.bias)
    classes = tuple(f"class {number}" for number in range(NUM_CLASSES))
    space = vectors.description.space
    answers = Recognition(view=space.view, feature=space.feature, dimension=DIMENSION, average="logits")
    return Classifier(classes, layer.requires_grad_(False), space.weights, space.normalisation, answers)


def fastest(job: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Make the folder, time both rows, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 vectors instead of 1,000,000")
    num_vectors = QUICK_VECTORS if parser.parse_args().quick else NUM_VECTORS
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        vectors = make_vectors(Path(folder) / "vectors", made_entries(0, num_vectors), 0, console)
        classifier, out = classifier_of(vectors), Path(folder) / "out.csv"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def answer() -> None:
            for block in probabilities_of(classifier, vectors):
                block.topk(NUM_NAMED, dim=1)

        def write() -> None:
            found = predict_vectors(classifier, vectors, NUM_NAMED)
            write_predictions(out, None, found, k=NUM_NAMED, unsure_below=0.5)

        shown = Table("predictions", "vectors/s", "target")
        shown.add_row("answers alone", f"{num_vectors / fastest(answer):,.0f}", f">= {TARGET:,}")
        shown.add_row("v3s predict, with its CSV file", f"{num_vectors / fastest(write):,.0f}", "")
        console.print(f"{describe_machine()}; {num_vectors:,} vectors of {DIMENSION}", highlight=False)
        console.print(shown)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
        console.print(f"memory, with the mapped vectors: {grown:,.0f} MB more at most", highlight=False)


if __name__ == "__main__":
    main()
