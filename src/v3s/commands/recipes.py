"""Named option sets for pre-training: the paper's settings and two of ours (paper section 4.1.2)."""

from typing import Any

_UCF101 = {
    "epochs": 300,
    "batch_size": 32,
    "learning_rate": 0.01,
    "validation_videos": 800,
    "keep": "accuracy",
    "statistics_clips": 0,
}

OWN = "own"
"""The recipe that `v3s.commands.own` chooses for some videos and a machine."""

RECIPES: dict[str, dict[str, Any]] = {
    "ucf101-c3d": {**_UCF101, "backbone": "c3d"},
    "ucf101-r3d": {**_UCF101, "backbone": "r3d", "learning_rate": 0.005},
    "ucf101-r2plus1d": {**_UCF101, "backbone": "r2plus1d"},
    "ucf101-s3dg": {**_UCF101, "backbone": "s3dg"},
    "kinetics400-r2plus1d": {
        **_UCF101,
        "backbone": "r2plus1d",
        "epochs": 70,
        "batch_size": 16,
        "validation_videos": 3000,
    },
    # V3S without the cues that reveal labels but not content (docs/results.md); any backbone, any number of epochs
    "v3s-plus": {"zoom": "even", "scale_jitter": 0.5, "blur": 3.0, "colour_jitter": 0.4, "grey": 0.2},
    # V3S and a contrast between videos, with what keeps a clip from being recognised by its colours or its borders
    "v3s-contrast": {
        "clips_together": 2,
        "contrast": 0.5,
        "flip": True,
        "colour_jitter": 0.4,
        "grey": 0.2,
        "trim_bars": True,
        "schedule": "cosine",
        "keep": "last",
    },
}
