"""Models of transformers as backbones: the contract, their own output, and configurations that cannot be built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from v3s.backbones.contract import check_backbone, normalisation_of
from v3s.backbones.foundation import ARCHITECTURES, build_foundation
from v3s.backbones.normalisation import Normalisation
from v3s.features.source import open_source

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))


def clips_for(kind: str, num_clips: int = 2) -> Tensor:
    """Random clips in [0, 1] that a model of `foundations` takes."""
    frames = 4 if ARCHITECTURES[kind].frames else 3
    return torch.rand((num_clips, 3, frames, 32, 32), generator=torch.Generator().manual_seed(1))


def own_output(kind: str, folder: Path, clips: Tensor) -> Any:
    """The features of normalised clips as transformers itself loads and runs the model."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    videos = ((clips - MEAN) / STD).transpose(1, 2)
    with torch.no_grad():
        if kind == "vjepa2":
            return model.get_vision_features(videos).mean(dim=1)
        if kind == "videomae":
            return model(videos).last_hidden_state.mean(dim=1)
        frames = []
        for number in range(videos.shape[1]):
            one = videos[:, number]
            if kind == "clip":
                frames.append(model.vision_model(one).pooler_output)
            elif kind == "vit":
                frames.append(model(one).last_hidden_state[:, 0])  # its pooler is of another task
            else:
                frames.append(model(one).pooler_output)
        return torch.stack(frames).mean(dim=0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_features_are_the_output_of_the_model_itself(kind: str, foundations: dict[str, Path]) -> None:
    clips = clips_for(kind)
    backbone: Any = open_source(f"hf:{foundations[kind]}").backbone
    with torch.no_grad():
        features, stages = backbone(clips), backbone.forward_stages(clips)
    expected = own_output(kind, foundations[kind], clips)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    (stage,) = stages.values()
    torch.testing.assert_close(stage.mean(dim=(2, 3, 4)), features)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_it_satisfies_the_contract_of_a_backbone(kind: str, foundations: dict[str, Path]) -> None:
    source = open_source(f"hf:{foundations[kind]}")
    check_backbone(source.backbone, clip_frames=4)
    assert normalisation_of(source.backbone) == Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (source.network, source.clip_size, source.clip_frames) == (kind, 32, 4 if ARCHITECTURES[kind].frames else 16)
    assert source.view().resize is not None


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        ("videomae", {"clip_frames": 8}, "clip_frames is 8; this network takes 4$"),
        ("vjepa2", {"clip_frames": 5}, "clip_frames is 5; this network takes 4 or another multiple of 2"),
        ("vjepa2", {"clip_size": 64}, "clip_size is 64; this network takes 32$"),
        ("clip", {"clip_size": 24}, "clip_size is 24; this network takes 32$"),
        ("dinov2", {"clip_size": 12}, "clip_size is 12; this network takes 32 or another multiple of 8"),
    ],
)
def test_clips_that_its_positions_are_not_for_are_refused(
    kind: str, sizes: dict[str, Any], message: str, foundations: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(f"hf:{foundations[kind]}").view(**sizes)


@pytest.mark.parametrize(("kind", "frames", "size"), [("vjepa2", 8, 32), ("dinov2", 1, 16), ("vit", 1, 32)])
def test_other_clips_that_it_takes(kind: str, frames: int, size: int, foundations: dict[str, Path]) -> None:
    source = open_source(f"hf:{foundations[kind]}")
    view = source.view(clip_frames=frames, clip_size=size)
    assert source.backbone(torch.rand(1, 3, view.clip_frames, view.clip_size, view.clip_size)).shape == (1, 24)


FORGED: dict[str, tuple[str, Any, str]] = {
    "unknown": ("model_type", "llama", "model_type 'llama'; known are vjepa2"),
    "mistyped": ("model_type", "vjepa", "did you mean 'vjepa2'"),
    "no type": ("model_type", ["vit"], "model_type"),
    "many layers": ("num_hidden_layers", 10**9, "1,000,000,000 layers, and the files of weights have"),
    "no layers": ("num_hidden_layers", 0, "layers"),
    "wide": ("hidden_size", 10**6, "does not describe a vit model"),
    "another width": ("hidden_size", 16, "does not describe a vit model"),
    "another picture": ("image_size", 48, "gives clips of 16 frames of 32 pixels, and it takes 16 of 48"),
    "text": ("hidden_size", "24", "does not describe a vit model"),
    "no patches": ("patch_size", 0, "are not whole numbers"),
    "huge picture": ("image_size", 10**9, "does not describe a vit model"),
    "large picture": ("image_size", 64, "does not describe a vit model"),
    "activation": ("hidden_act", "import os", "does not describe a vit model"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_configuration_is_one_error(case: str, foundations: dict[str, Path]) -> None:
    name, value, message = FORGED[case]
    values = json.loads((foundations["vit"] / "config.json").read_text()) | {name: value}
    size = value if name == "image_size" and value != 48 else 32
    with pytest.raises(ValueError, match=message) as raised:
        build(values, foundations["vit"], size)
    assert "\n" not in str(raised.value)


def build(values: dict[str, Any], folder: Path, size: int = 32) -> Any:
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    return build_foundation(values, tensors, clip_frames=None, clip_size=size, normalisation=None)


def test_nothing_but_known_fields_reaches_transformers(foundations: dict[str, Path]) -> None:
    """A configuration may name code: of the repository, of a kernel on the hub, of a quantiser."""
    values = json.loads((foundations["vit"] / "config.json").read_text())
    named = {
        "auto_map": {"AutoModel": "evil.Model"},
        "attn_implementation": "evil/kernel",
        "_attn_implementation": "evil/kernel",
        "quantization_config": {"quant_method": "evil"},
        "dtype": "float16",
    }
    model = build(values | named, foundations["vit"]).model
    assert model.config._attn_implementation == "sdpa"
    assert not hasattr(model.config, "auto_map")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_a_missing_tensor_is_not_replaced_by_random_numbers(foundations: dict[str, Path]) -> None:
    from safetensors.torch import load_file

    values, tensors = json.loads((foundations["vit"] / "config.json").read_text()), {}
    for name, tensor in load_file(foundations["vit"] / "model.safetensors").items():
        tensors["other" if "layernorm_before.bias" in name and ".1." in name else name] = tensor
    with pytest.raises(ValueError, match=r"its files lack 1 of its tensors, first .*layernorm_before\.bias"):
        build_foundation(values, tensors, clip_frames=None, clip_size=32, normalisation=None)
