"""The stimuli of an audit: real clips, and clips without content (noise, frozen and shuffled frames)."""

import numpy as np
import torch
from torch import Tensor

from v3s.data.clips import PretextClips, SampleKey
from v3s.pretext.cut import cut_clip
from v3s.video.decode import read_frames

STIMULI = ("video", "frozen", "shuffled", "still noise", "moving noise")
_SHORTEST_WAVE = 4  # pixels: as in compressed video, there is no finer noise
_FASTEST = 3  # pixels per frame: the maximum drift of moving noise in x and in y
_STIMULUS = 4  # keeps these random draws separate from those of the samples


class Stimuli:
    """Each sample as video and in four variants that remove something: uint8 (stimuli, 3, T, size, size), and labels.

    frozen: the first frame is repeated; shuffled: the frames are in random order; still noise: the map of the sample is
    applied to an isotropic texture; moving noise: to such a texture that drifts at a random speed.
    """

    def __init__(self, clips: PretextClips) -> None:
        self.clips = clips

    def path(self, key: SampleKey) -> str:
        """The file of a sample."""
        return self.clips.path(key)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        video, plan = self.clips.plan(*key)
        source, size = self.clips.table[video], self.clips.sampling.clip_size
        generator = np.random.default_rng((self.clips.seed, *key, _STIMULUS))
        clip = cut_clip(read_frames(source, plan.frames), plan, size)
        texture = draw_texture(generator, source.height, source.width)
        speed = generator.uniform(-_FASTEST, _FASTEST, size=2)
        places = np.outer(np.array(plan.frames) - plan.frames[0], speed).round().astype(int)
        drifting = torch.stack([texture.roll((down, across), dims=(1, 2)) for down, across in places.tolist()])
        frozen = clip[:, :1].expand_as(clip)
        shuffled = clip[:, generator.permutation(clip.shape[1])]
        still = cut_clip(texture[None], plan, size).expand_as(clip)
        shown = torch.stack([clip, frozen, shuffled, still, cut_clip(drifting, plan, size)])
        return shown, torch.tensor([plan.labels.spatial, plan.labels.temporal])


def draw_texture(generator: np.random.Generator, height: int, width: int) -> Tensor:
    """Isotropic grey noise whose amplitude falls as 1/f, as in natural images, uint8 (3, H, W).

    It wraps around at its borders and has no wave shorter than `_SHORTEST_WAVE` pixels.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.divide(1, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    amplitude[frequency > 1 / _SHORTEST_WAVE] = 0
    texture = np.fft.irfft2(np.fft.rfft2(generator.normal(size=(height, width))) * amplitude, s=(height, width))
    texture = 128 + 40 * texture / texture.std()
    return torch.from_numpy(texture.clip(0, 255).round().astype(np.uint8)).expand(3, height, width)
