"""A recognizer as a value: a network, the clips that it is shown, and the classifier of its features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from torch import Tensor

from v3s.backbones.device import Compute, Precision, choose_compute
from v3s.data.index_table import IndexTable
from v3s.data.views import View
from v3s.features.encoder import Encoder, make_encoder
from v3s.features.source import open_source
from v3s.files.text import short_repr
from v3s.recognizers.calibration import Calibration
from v3s.recognizers.classifier import Average, Classifier, load_classifier, require_probabilities
from v3s.recognizers.predictions import Prediction, most_probable, number_of_classes
from v3s.video.span import times_of


@dataclass(frozen=True, slots=True, eq=False)
class Recognizer:
    """A network and its classifier, which name what videos show.

    Attributes:
        encoder: the network, with the clips and the feature that the classifier takes.
        classifier: its classes, average and calibration.
    """

    encoder: Encoder
    classifier: Classifier
    __repr__ = short_repr

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classifier.classes

    def asked(self, view: View, average: Average) -> "Recognizer":
        """Return it with other clips of a video, or another average over them, and not calibrated."""
        answers = replace(self.classifier.recognition, view=view, average=average, calibration=None)
        return Recognizer(replace(self.encoder, view=view), replace(self.classifier, recognition=answers))

    def calibrated(self, calibration: Calibration) -> "Recognizer":
        """Return it with its probabilities corrected."""
        answers = replace(self.classifier.recognition, calibration=calibration)
        return replace(self, classifier=replace(self.classifier, recognition=answers))

    def predict(self, paths: str | Path | Sequence[str | Path], *, k: int | None = None) -> list[Prediction]:
        """Return the most probable classes of whole videos.

        Args:
            paths: video files; a video shorter than a clip repeats its last frame.
            k: number of classes; by default all.

        Returns:
            A prediction for each video, in order.

        Raises:
            ValueError: ``k`` is more than there are classes.
            VideoError: a file cannot be read; the message contains its path. All files are checked first.
        """
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        table = self.encoder.table_of(files)
        number = number_of_classes(k, self.classes, len(self.classes))
        best = most_probable((row[None] for row in self.probabilities(table)), self.classes, number)
        return [
            Prediction(str(file), *times_of(video), *answer)
            for file, video, answer in zip(files, table, best, strict=True)
        ]

    def probabilities(
        self, table: IndexTable, *, console: Console | None = None, what: str = "videos"
    ) -> Iterator[Tensor]:
        """Yield the probabilities of the classes for videos or spans, one after another.

        Args:
            table: the videos.
            console: where to show progress; nowhere by default.
            what: description of the progress bar.

        Yields:
            Float32 on the CPU, shape (C,).

        Raises:
            ValueError: the output of the network or of the classifier contains NaN or infinity; the message contains
                the video.
        """
        for video, (features,) in self.encoder.encode_features(table, console=console, what=what):
            yield require_probabilities(self.classifier.of_clips(features), table[video].path)


def load_recognizer(path: str | Path, *, device: str = "auto", precision: Precision = "auto") -> Recognizer:
    """Load a recognizer.

    Args:
        path: the folder of a run of v3s finetune, or of a recognizer that v3s probe saved.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "bf16" or "fp32".

    Raises:
        ValueError: the folder does not contain a recognizer, its files are damaged, or the device does not exist.
    """
    return open_recognizer(path, choose_compute(device, precision))


def open_recognizer(
    path: str | Path, compute: Compute, *, num_clips: int | None = None, num_workers: int = 0
) -> Recognizer:
    """Open a recognizer on a device.

    Args:
        path: its folder.
        compute: device and precision.
        num_clips: clips of a video; by default as many as it was tested with.
        num_workers: processes that read videos.

    Raises:
        CheckpointError: the folder does not contain a recognizer, or its files are damaged.
    """
    classifier = load_classifier(path)
    space, source = classifier.space, open_source(str(path))
    classifier.require_stage(source.backbone.stages, path)  # type: ignore[arg-type]
    view = space.view if num_clips is None else replace(space.view, num_clips=num_clips, stride=0)
    encoder = make_encoder(source, view, [space.feature], compute, num_workers=num_workers)
    classifier.require_dimension(encoder.dimension, path)
    return Recognizer(encoder, replace(classifier, recognition=replace(classifier.recognition, view=view)))
