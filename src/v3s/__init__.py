"""Video 3D Sampling: train a video backbone on any folder of videos, without labels.

import v3s

v3s.pretrain(v3s.PretrainConfig(data="videos", out="run"))
backbone = v3s.load_backbone("run")  # clips (B, 3, T, H, W) in [0, 1] -> features (B, backbone.num_features)

Every command is also a function, with its options as a dataclass: ``v3s embed --help`` lists the options of
``v3s.embed(v3s.EmbedConfig(...))``. A name is imported when it is first used.
"""

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module

TYPE_CHECKING = False  # not typing's: `python -m v3s` looks for what this file imports in the current folder first
if TYPE_CHECKING:
    from typing import Any

    from v3s.backbones import BACKBONES, check_backbone, create_backbone
    from v3s.commands.audit import AuditConfig, audit
    from v3s.commands.check import CheckConfig, check
    from v3s.commands.convert import ConvertConfig, convert
    from v3s.commands.demo import DemoConfig, demo
    from v3s.commands.evaluate import EvaluateConfig, evaluate
    from v3s.commands.prepare import PrepareConfig, prepare
    from v3s.commands.pretrain import PretrainConfig, pretrain
    from v3s.commands.preview import PreviewConfig, preview
    from v3s.commands.recipes import recipe
    from v3s.commands.replay import ReplayConfig, replay
    from v3s.commands.reproduce import ReproduceConfig, reproduce
    from v3s.explore.clusters import clusters_of
    from v3s.explore.duplicates import near_duplicates
    from v3s.explore.explore import ExploreConfig, explore
    from v3s.explore.outliers import outlier_scores
    from v3s.explore.projection import map_of
    from v3s.explore.to_label import choose_to_label
    from v3s.export.export import ExportConfig, export
    from v3s.features.encoder import load_encoder
    from v3s.features.saved import load_backbone
    from v3s.pretext.task import TASKS
    from v3s.protocols.compare import CompareConfig, compare
    from v3s.protocols.explain import ExplainConfig, explain
    from v3s.protocols.finetune import FinetuneConfig, finetune
    from v3s.protocols.probe import ProbeConfig, probe
    from v3s.protocols.retrieve import RetrieveConfig, retrieve
    from v3s.protocols.similarity import SimilarityConfig, similarity
    from v3s.protocols.speediness import SpeedinessConfig, speediness
    from v3s.recognizers.predict import PredictConfig, predict
    from v3s.recognizers.recognizer import load_recognizer
    from v3s.serve.serve import ServeConfig, serve
    from v3s.train.callbacks import Callback
    from v3s.vectors.embed import EmbedConfig, embed
    from v3s.vectors.index import IndexConfig, index
    from v3s.vectors.merge import MergeConfig, merge
    from v3s.vectors.search import SearchConfig, search

__all__ = [
    "BACKBONES",
    "TASKS",
    "AuditConfig",
    "Callback",
    "CheckConfig",
    "CompareConfig",
    "ConvertConfig",
    "DemoConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "ExplainConfig",
    "ExploreConfig",
    "ExportConfig",
    "FinetuneConfig",
    "IndexConfig",
    "MergeConfig",
    "PredictConfig",
    "PrepareConfig",
    "PretrainConfig",
    "PreviewConfig",
    "ProbeConfig",
    "ReplayConfig",
    "ReproduceConfig",
    "RetrieveConfig",
    "SearchConfig",
    "ServeConfig",
    "SimilarityConfig",
    "SpeedinessConfig",
    "__version__",
    "audit",
    "check",
    "check_backbone",
    "choose_to_label",
    "clusters_of",
    "compare",
    "convert",
    "create_backbone",
    "demo",
    "embed",
    "evaluate",
    "explain",
    "explore",
    "export",
    "finetune",
    "index",
    "load_backbone",
    "load_encoder",
    "load_recognizer",
    "map_of",
    "merge",
    "near_duplicates",
    "outlier_scores",
    "predict",
    "prepare",
    "pretrain",
    "preview",
    "probe",
    "recipe",
    "replay",
    "reproduce",
    "retrieve",
    "search",
    "serve",
    "similarity",
    "speediness",
]

_OTHERS = {
    "v3s.commands.recipes": ("recipe",),
    "v3s.backbones": ("BACKBONES", "check_backbone", "create_backbone"),
    "v3s.explore.clusters": ("clusters_of",),
    "v3s.explore.duplicates": ("near_duplicates",),
    "v3s.explore.outliers": ("outlier_scores",),
    "v3s.explore.projection": ("map_of",),
    "v3s.explore.to_label": ("choose_to_label",),
    "v3s.features.encoder": ("load_encoder",),
    "v3s.features.saved": ("load_backbone",),
    "v3s.pretext.task": ("TASKS",),
    "v3s.recognizers.recognizer": ("load_recognizer",),
    "v3s.train.callbacks": ("Callback",),
}
"""Public names in addition to the commands, by module."""


def __getattr__(name: str) -> "Any":
    """Import a public name when it is first used: ``import v3s`` itself imports nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'v3s' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("v3s")
    from v3s.commands import COMMANDS

    homes = {name: module for module, names in _OTHERS.items() for name in names}
    for verb, command in COMMANDS.items():
        homes |= {verb: command.module, f"{verb.capitalize()}Config": command.module}
    module = import_module(homes[name])
    value = getattr(module, name)
    if name in COMMANDS:
        value = _checking(value, getattr(module, f"{name.capitalize()}Config"))
    globals()[name] = value
    return value


def _checking(verb: "Callable[..., Any]", kind: "type[Any]") -> "Callable[..., Any]":
    """A command's function that refuses anything else than its options, such as a dictionary, before it begins."""

    @wraps(verb)
    def checking(config: "Any", *arguments: "Any", **named: "Any") -> "Any":
        if not isinstance(config, kind):
            call, given = f"v3s.{verb.__name__}(v3s.{kind.__name__}(...))", type(config).__name__
            raise TypeError(f"v3s.{verb.__name__} was given a {given}; it needs its options: {call}")
        return verb(config, *arguments, **named)

    checking.__module__ = __name__  # by which it is pickled
    return checking


def __dir__() -> list[str]:
    return __all__


class _Package(type(sys)):  # type: ignore[misc]
    """A command may have the name of its folder: importing a file of ``v3s.serve`` leaves the command there."""

    def __setattr__(self, name: str, value: "Any") -> None:
        if not (name in __all__ and isinstance(value, type(sys))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
