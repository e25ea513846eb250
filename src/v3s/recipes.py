"""The paper's settings as named values, each with the number that it should reach; and one of ours.

Source: paper sections 4.1.2 and 4.3, Table 2 (UCF101 and HMDB51 accuracy after fine-tuning, split 1).
"""

from typing import Any

_UCF101 = {"epochs": 300, "batch_size": 32, "learning_rate": 0.01, "validation_videos": 800}

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
    # V3S less what a network can read without looking at content (docs/results.md); any backbone, any number of epochs
    "v3s-plus": {"zoom": "even", "scale_jitter": 0.5, "blur": 3.0, "colour_jitter": 0.4, "grey": 0.2},
}

PAPER_ACCURACY: dict[str, tuple[float, float]] = {
    "ucf101-c3d": (74.8, 34.9),
    "ucf101-r3d": (74.0, 38.0),
    "ucf101-r2plus1d": (79.1, 38.7),
    "ucf101-s3dg": (85.4, 53.2),
    "kinetics400-r2plus1d": (79.2, 40.4),
}
"""Recognition accuracy in percent on (UCF101, HMDB51) that the paper reports after each recipe."""
