"""Video 3D Sampling: train a video backbone on any folder of videos, without labels.

import v3s

v3s.pretrain(v3s.PretrainConfig(data="videos", out="run"))
backbone = v3s.load_backbone("run")  # clips (B, 3, T, H, W) in [0, 1] -> features (B, backbone.num_features)
"""

from importlib.metadata import version

from v3s.backbones import BACKBONES, check_backbone, create_backbone
from v3s.config import (
    CheckConfig,
    DemoConfig,
    EvaluateConfig,
    PretrainConfig,
    PreviewConfig,
)
from v3s.convert import ConvertConfig, convert
from v3s.data.check import check
from v3s.downstream.encoder import load_encoder
from v3s.pretext.task import TASKS
from v3s.pretrain import pretrain
from v3s.replay import ReplayConfig, replay
from v3s.train.trained import load_backbone

__version__ = version("v3s")

__all__ = [
    "BACKBONES",
    "TASKS",
    "CheckConfig",
    "ConvertConfig",
    "DemoConfig",
    "EvaluateConfig",
    "PretrainConfig",
    "PreviewConfig",
    "ReplayConfig",
    "check",
    "check_backbone",
    "convert",
    "create_backbone",
    "load_backbone",
    "load_encoder",
    "pretrain",
    "replay",
]
