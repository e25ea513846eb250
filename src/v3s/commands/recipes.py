"""Named option sets for pre-training: the paper's settings and three of ours (paper section 4.1.2)."""

from collections.abc import Mapping
from typing import Any

from v3s import argv
from v3s.options import closest

_UCF101 = {
    "epochs": 300,
    "batch_size": 32,
    "learning_rate": 0.01,
    "validation_videos": 800,
    "keep": "accuracy",
    "statistics_clips": 0,
}

OWN = "own"
"""Not a fixed set: it is chosen for some videos and a machine, see `v3s.commands.own`."""

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
    # V3S without the cues that reveal labels but not content (docs/shortcuts.md); any backbone, any number of epochs
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

RECIPE_OPTION = argv.Option(
    field="recipe",
    names=("--recipe",),
    choices=(*RECIPES, OWN),
    metavar="NAME",
    group="Attributes",
    help="A named set of options; any other option overrides it. own chooses for your videos and this machine, and "
    "says why.",
)
"""A command-line option that is not a field of the configuration."""


class RecipeError(ValueError):
    """The recipe own has no settings for the videos, or no folder for the run."""


def recipe(name: str, *, minutes: float | None = None, **options: Any) -> dict[str, Any]:
    """Return the options of a recipe for `PretrainConfig`, with others that override them.

    Args:
        name: a name that ``--recipe`` takes.
        minutes: how long the training may take, for the recipe own.
        options: fields of `PretrainConfig`; own needs ``data``.

    Raises:
        ValueError: there is no such recipe, or own has no settings for the videos.

    >>> recipe("v3s-contrast", data="videos", out="run", contrast=0.25)["contrast"]
    0.25
    """
    if name not in (known := (*RECIPES, OWN)):
        raise ValueError(f"no recipe is called {name!r}{closest(name, known)}; available: {', '.join(known)}")
    return options_of_recipe(name, options, minutes) | options


def options_of_recipe(name: str | None, given: Mapping[str, Any], minutes: float | None = None) -> dict[str, Any]:
    """Return the options of a recipe.

    Args:
        name: its name; None for none.
        given: options that were given, and override it.
        minutes: how long the training may take, for the recipe own.

    Raises:
        ValueError: ``minutes`` is not positive, or the recipe is another.
        TypeError: ``minutes`` is not a number.
        RecipeError: the videos cannot be listed or read, or the folder of the run is taken.
    """
    if minutes is not None and not isinstance(minutes, int | float):
        raise TypeError(f"minutes is {minutes!r}, of type {type(minutes).__name__}; it must be a number or None")
    if minutes is not None and name != OWN:
        raise ValueError(f"minutes is {minutes:g}; it needs --recipe {OWN}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes is {minutes:g}; it must be more than 0")
    if name != OWN:
        return dict(RECIPES[name]) if name else {}
    if "data" not in given:
        raise argv.UsageError("--data is missing")
    from v3s.commands.own import own_options  # which imports torch

    try:
        return own_options(RECIPES["v3s-contrast"], given, minutes=minutes)
    except ValueError as error:
        raise RecipeError(str(error)) from error
