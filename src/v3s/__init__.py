"""Video 3D Sampling: train a video backbone on any folder of videos, without labels.

import v3s

v3s.commands.pretrain(v3s.PretrainConfig(data="videos", out="run"))
backbone = v3s.load_backbone("run")  # clips (B, 3, T, H, W) in [0, 1] -> features (B, backbone.num_features)
"""

from importlib.metadata import version

from v3s.backbones import BACKBONES, check_backbone, create_backbone
from v3s.commands.check import CheckConfig, check
from v3s.commands.convert import ConvertConfig, convert
from v3s.commands.demo import DemoConfig
from v3s.commands.evaluate import EvaluateConfig
from v3s.commands.pretrain import pretrain
from v3s.commands.pretrain_setup import PretrainConfig
from v3s.commands.preview import PreviewConfig
from v3s.commands.replay import ReplayConfig, replay
from v3s.features.encoder import load_encoder
from v3s.features.saved import load_backbone
from v3s.pretext.task import TASKS

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
