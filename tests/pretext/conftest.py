"""The smallest network that can be trained on a pretext task."""

from torch import Tensor, nn


class Means(nn.Module):
    """The smallest backbone: a linear layer on the clip's mean colour."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, self.num_features)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) to features (B, 5)."""
        features: Tensor = self.layer(clips.mean(dim=(2, 3, 4)))
        return features
