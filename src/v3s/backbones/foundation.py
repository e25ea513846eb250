"""Foundation models of Hugging Face transformers as backbones: frozen networks of known architectures.

A video model (V-JEPA 2, VideoMAE) gives the mean of its tokens; an image model (CLIP, DINOv2, ViT) is shown each frame
of a clip alone and gives the mean of the frames' class tokens. Both are the output of the model after its last
normalisation. Only the classes named in `ARCHITECTURES` are built: nothing that a model's folder names is imported.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from v3s.backbones.normalisation import Normalisation, Normalising
from v3s.options import closest, import_extra

_STAGE = "pooled"
_CLIP_FRAMES = 16  # of image models, which have no length of their own: as the built-in networks
_MOST_TOKENS = 1 << 16  # of a clip; V-JEPA 2 has 18,432 for 64 frames of 384 x 384


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What is known of an architecture; the names are those of transformers.

    Attributes:
        model: class of the model.
        part: the part of the model that computes the features; empty for all of it.
        options: further arguments of the class.
        section: part of config.json that describes this model; empty for all of it.
        size: field of the configuration with the side of its pictures.
        frames: field with the number of frames; empty for an image model.
        any_frames: whether clips of other lengths are possible.
        any_size: whether clips of other sizes are possible.
    """

    model: str
    part: str = ""
    options: Mapping[str, Any] | None = None
    section: str = ""
    size: str = "image_size"
    frames: str = ""
    any_frames: bool = True
    any_size: bool = False


ARCHITECTURES = {
    "vjepa2": Architecture(model="VJEPA2Model", part="encoder", size="crop_size", frames="frames_per_clip"),
    "videomae": Architecture(model="VideoMAEModel", frames="num_frames", any_frames=False),
    "clip": Architecture(model="CLIPVisionModel", section="vision_config"),
    "clip_vision_model": Architecture(model="CLIPVisionModel"),
    "dinov2": Architecture(model="Dinov2Model", any_size=True),
    "vit": Architecture(model="ViTModel", options={"add_pooling_layer": False}),
}
"""By the ``model_type`` of config.json."""


class FoundationBackbone(Normalising):
    """A frozen model of transformers that satisfies the contract of `v3s.backbones.contract.Backbone`.

    It has one stage, the vector of a clip (B, num_features, 1, 1, 1), so both poolings give the model's own output.

    Args:
        model: the model of transformers.
        known: what is known of its architecture.
        clip_frames: frames of a clip.
        clip_size: side of a clip in pixels.
        patch: (frames, pixels) of a token.
        normalisation: of clips, as the weights expect it.
    """

    def __init__(
        self,
        model: nn.Module,
        known: Architecture,
        *,
        clip_frames: int,
        clip_size: int,
        patch: tuple[int, int],
        normalisation: Normalisation | None,
    ):
        super().__init__()
        self.model = model
        self.clip_frames, self.clip_size = clip_frames, clip_size
        self.num_features: int = model.config.hidden_size  # type: ignore[union-attr, assignment]
        self.stages = {_STAGE: self.num_features}
        self.normalisation = normalisation
        self._known, self._patch = known, patch
        for name, weight in model.named_parameters():
            weight.requires_grad_("mask_token" not in name)  # which stands for hidden patches in their training

    def check_clips(self, clip_frames: int, clip_size: int) -> None:
        """Refuse clips that the model does not take.

        Raises:
            ValueError: its positions are for another number of frames or another size.
        """
        frames, pixels = self._patch
        if clip_frames != self.clip_frames and (not self._known.any_frames or clip_frames % frames):
            other = f" or another multiple of {frames}" if self._known.any_frames else ""
            raise ValueError(f"clip_frames is {clip_frames}; this network takes {self.clip_frames}{other}")
        if clip_size != self.clip_size and (not self._known.any_size or clip_size % pixels):
            other = f" or another multiple of {pixels}" if self._known.any_size else ""
            raise ValueError(f"clip_size is {clip_size}; this network takes {self.clip_size}{other}")

    def forward_stages(self, clips: Tensor) -> dict[str, Tensor]:
        """Map clips ``(B, 3, T, H, W)`` in [0, 1] to the only stage, ``(B, num_features, 1, 1, 1)``."""
        return {_STAGE: self(clips)[:, :, None, None, None]}

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips ``(B, 3, T, H, W)`` in [0, 1] to features ``(B, num_features)``."""
        frames = self.normalise(clips).transpose(1, 2)
        if self._known.frames:
            tokens: Tensor = self.model(frames).last_hidden_state
            return tokens.mean(dim=1)
        found = self.model(frames.flatten(0, 1))
        pooled: Tensor | None = found.pooler_output
        vectors: Tensor = found.last_hidden_state[:, 0] if pooled is None else pooled
        return vectors.reshape(*frames.shape[:2], -1).mean(dim=1)


def build_foundation(
    values: Mapping[str, Any],
    tensors: dict[str, Tensor],
    *,
    clip_frames: int | None,
    clip_size: int | None,
    normalisation: Normalisation | None,
) -> FoundationBackbone:
    """Build a model from the content of its files, in float32 and evaluation mode.

    Args:
        values: the content of config.json.
        tensors: the content of its safetensors files.
        clip_frames: frames of a clip, if its preprocessing states them.
        clip_size: side of a clip in pixels, if its preprocessing states it.
        normalisation: of clips, as its preprocessing states it.

    Raises:
        ValueError: the architecture is unknown, the configuration is wrong, or a tensor is missing or of another shape;
            the message does not name the folder.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        hint = closest(kind, ARCHITECTURES) if isinstance(kind, str) else ""
        raise ValueError(f"config.json has the model_type {kind!r:.80}{hint}; known are {', '.join(ARCHITECTURES)}")
    known = ARCHITECTURES[kind]
    transformers = import_extra("transformers", "hf", "a backbone hf:")
    described = values.get(known.section) if known.section else values
    try:
        if not isinstance(described, dict):
            raise ValueError(f"{known.section} is missing")
        config = _configuration(getattr(transformers, known.model), described, len(tensors))
        frames = clip_frames or (getattr(config, known.frames) if known.frames else _CLIP_FRAMES)
        size = clip_size or getattr(config, known.size)
        patch = _check_sizes(config, known, frames, size)
        model = _load(getattr(transformers, known.model), config, tensors, known.options or {})
    except Exception as error:  # whatever a forged configuration leads to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"config.json does not describe a {kind} model ({reason})") from error
    network = FoundationBackbone(
        model.get_submodule(known.part),
        known,
        clip_frames=frames,
        clip_size=size,
        patch=patch,
        normalisation=normalisation,
    )
    return network.eval()


def _configuration(model: Any, described: Mapping[str, Any], num_tensors: int) -> Any:
    """The configuration of a model: only what its architecture knows, so no reference to code or to other files."""
    kind = model.config_class
    general = inspect.signature(import_extra("transformers", "hf", "a backbone hf:").PretrainedConfig).parameters
    own = [name for name in inspect.signature(kind).parameters if name not in general]
    config = kind(**{name: described[name] for name in own if name in described})
    layers = [getattr(config, name) for name in own if name.endswith("num_hidden_layers")]
    if not all(isinstance(number, int) and 0 < number <= num_tensors for number in layers):
        raise ValueError(f"it has {max(layers):,} layers, and the files of weights have {num_tensors:,} tensors")
    return config


def _check_sizes(config: Any, known: Architecture, frames: Any, size: Any) -> tuple[int, int]:
    """Return the frames and pixels of a token; refuses clips that are not of whole tokens, or of too many."""
    patch = (config.tubelet_size if known.frames else 1), config.patch_size
    if not all(type(number) is int and number > 0 for number in (frames, size, *patch)):
        raise ValueError(f"clips of {frames} frames of {size} pixels, with tokens of {patch}, are not whole numbers")
    own_frames, own_size = getattr(config, known.frames) if known.frames else frames, getattr(config, known.size)
    if (frames != own_frames and not known.any_frames) or (size != own_size and not known.any_size):
        raise ValueError(
            f"preprocessing gives clips of {frames} frames of {size} pixels, and it takes {own_frames} of {own_size}"
        )
    num_tokens = (frames // patch[0] if known.frames else 1) * (size // patch[1]) ** 2
    if not 0 < num_tokens <= _MOST_TOKENS or (known.frames and frames % patch[0]):
        raise ValueError(f"clips of {frames:,} frames of {size:,} pixels have {num_tokens:,} tokens of {patch}")
    return patch


def _load(kind: Any, config: Any, tensors: dict[str, Tensor], options: Mapping[str, Any]) -> nn.Module:
    """Load tensors into a model of transformers, which knows their names in older files.

    Raises:
        ValueError: a tensor is missing, or of another shape.
    """
    with torch.device("meta"):
        num_needed = sum(weight.numel() for weight in kind(config, **options).parameters())
    if num_needed > sum(tensor.numel() for tensor in tensors.values()):
        raise ValueError(f"it has {num_needed:,} weights, more than its files")
    with _quiet():
        model, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(f"its files lack {len(lacking)} of its tensors, first {lacking[0]}")
    loaded: nn.Module = model
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which transformers reports nothing: what it would report is raised, or does not matter here."""
    logging = import_extra("transformers.utils.logging", "hf", "a backbone hf:")
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
