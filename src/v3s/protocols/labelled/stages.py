"""Stored vectors of several stages of one network: a collection for each, of the same videos."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoList
from v3s.features.encoder import Feature, Space
from v3s.features.source import EncoderOptions
from v3s.protocols.labelled.features import require_view, take_stored
from v3s.protocols.labelled.parts import Labelled
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.labels import Contents, list_contents, list_labelled, list_official


@dataclass(frozen=True, slots=True, eq=False)
class StoredStages:
    """Collections of the same videos, one for each stage of a network.

    Attributes:
        stages: the collections.
        contents: what the first one has vectors of, as all others.
    """

    stages: tuple[Vectors, ...]
    contents: Contents

    @classmethod
    def of(
        cls, folders: Sequence[str], options: EncoderOptions, features: Sequence[Feature], stride: int
    ) -> "StoredStages":
        """Open a collection for each feature.

        Raises:
            VectorsError: one has another feature or other clips, or they are of several networks or of other videos.
        """
        stages = tuple(open_vectors(folder) for folder in folders)
        for vectors, feature in zip(stages, features, strict=True):
            require_view(vectors, options, feature, stride=stride)
        first = stages[0]
        for other in stages[1:]:
            spaces = [replace(each.description.space, feature=features[0]) for each in (first, other)]
            if spaces[0] != spaces[1] or list(first.entries()) != list(other.entries()):
                raise VectorsError(
                    f"{first.folder} and {other.folder} are of other networks, clips or videos; embed the stages of "
                    "one network from one list"
                )
        return cls(stages, Contents.of(first))

    @property
    def backbone(self) -> str:
        """The network, as it was given."""
        return self.stages[0].description.backbone

    @property
    def space(self) -> Space:
        """Its weights and the clips."""
        return self.stages[0].description.space

    def list_videos(self, data: str | None, splits: str | None, split: int, subset: Subset) -> VideoList:
        """List the labelled videos: of a list file, of official lists, or the collection's own."""
        if data is not None:
            return list_labelled(self.contents, Path(data))
        if splits is not None:
            return list_official(self.contents, Path(splits), split, subset)
        return list_contents(self.contents, subset=subset)

    def take(self, listed: VideoList, console: Console) -> Labelled:
        """Return the videos of a list with their vectors of all stages, one after another."""
        quiet = Console(quiet=True)
        found = [
            take_stored(replace(self.contents, vectors=vectors), listed, console if number == 0 else quiet)
            for number, vectors in enumerate(self.stages)
        ]
        features = [each.features for each in found if each.features is not None]
        return replace(found[0], features=torch.cat(features, dim=1))

    def split(self, videos: Labelled) -> list[Tensor]:
        """Return the vectors of each stage: float32, shape (videos, D).

        Raises:
            VectorsError: a number is negative.
        """
        assert videos.features is not None
        parts = list(torch.split(videos.features, [each.description.dimension for each in self.stages], dim=1))
        for vectors, part in zip(self.stages, parts, strict=True):
            if not (part >= 0).all():
                raise VectorsError(
                    f"{vectors.folder} contains {part.min():g}; the twelve similarities need features of 0 or more: "
                    "embed --stages that end in a ReLU"
                )
        return parts
