"""What pre-training minimises: the loss of the paper, alone or with terms beyond it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from v3s.options import require_not_negative
from v3s.pretext.contrast import contrast_loss
from v3s.pretext.model import pretext_objective, pretext_terms
from v3s.pretext.relative import relative_loss

PretextObjective = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """What pre-training minimises: the paper's L_S + L_T, or more.

    More options:
        contrast: Weight of a contrastive loss (NT-Xent): clips of one video should have similar vectors, clips of
            different videos should not. It is added to the paper's loss, and needs --clips-together 2 or more.
        relative: Weight of a loss on relative speed: which clip of a video shows a given temporal label? It is added to
            the paper's loss, and needs --clips-together 2 or more.

    For ablations:
        heads: Weight of the losses of both heads; 0 trains without them.
    """

    contrast: float = 0.0
    relative: float = 0.0
    heads: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether the loss is that of the paper."""
        return self.contrast == self.relative == 0

    @property
    def beyond_text(self) -> str:
        """The terms beyond the paper with their weights, for an announcement; empty if there are none."""
        weights = {"contrast": self.contrast, "relative speed": self.relative}
        return "".join(f", {name} {weight:g}" for name, weight in weights.items() if weight)

    def check_objective(self, clips_together: int) -> None:
        """Check the weights.

        Args:
            clips_together: clips of one video in a batch.

        Raises:
            ValueError: a weight is out of range, or there are no two clips of a video to compare.
        """
        require_not_negative(self, "contrast", "relative", "heads")
        for name in ("contrast", "relative"):
            if (weight := getattr(self, name)) > 0 and clips_together == 1:
                raise ValueError(f"{name} is {weight:g}; it needs clips_together 2 or more")
        if self.heads != 1 and self.contrast == 0:
            raise ValueError(f"heads is {self.heads:g}; a weight other than 1 needs a contrast")

    def objective(self) -> PretextObjective:
        """Return the objective of training; without other terms, that of the paper."""
        if self.is_plain:
            return pretext_objective
        return partial(joint_objective, contrast=self.contrast, relative=self.relative, heads=self.heads)


def joint_objective(
    model: nn.Module, clips: Tensor, targets: Tensor, *, contrast: float, relative: float = 0.0, heads: float = 1.0
) -> dict[str, Tensor]:
    """The terms of V3S and those beyond the paper: heads * (L_S + L_T) + contrast * C + relative * R.

    Args:
        model: a `PretextModel` in training mode, with a projector if there is a contrast.
        clips: shape (B, 3, T, H, W) with values in [0, 1].
        targets: int64, shape (B, 3): spatial row, temporal row, number of the video. With spans of recordings
            (B, 6): also the number of the file, start and end.
        contrast: weight of the contrast between videos.
        relative: weight of the relative speed of a video's clips.
        heads: weight of the losses of both heads.
    """
    output, videos = model(clips), targets[:, 2]
    terms = pretext_terms(output, targets)
    beyond = {}
    if contrast:
        spans = targets[:, 3:] if targets.shape[1] > 3 else None
        beyond["contrast"] = contrast_loss(output.embedding, videos, spans)
    if relative:
        beyond["relative"] = relative_loss(output.temporal, targets[:, 1], videos)
    weights = {"contrast": contrast, "relative": relative}
    loss = heads * terms["loss"] + sum(weights[name] * value for name, value in beyond.items())
    return {**terms, "loss": loss, **{f"loss_{name}": value for name, value in beyond.items()}}
