"""What an audit shows a network: the clips, and textures and orders of frames without content."""

import numpy as np
import torch
from torch import Tensor

from v3s.data.clips import PretextClips, SampleKey
from v3s.pretext.cut import cut_clip
from v3s.video.decode import read_frames

STIMULI = ("video", "frozen", "shuffled", "still noise", "moving noise")
_SHORTEST_WAVE = 4  # pixels: no noise finer than what compression leaves of a real video
_FASTEST = 3  # pixels a frame that moving noise drifts at most, across and down
_STIMULUS = 4  # a domain that keeps these draws apart from the samples' own


class Stimuli:
    """Each sample as video and in four ways that take something away: uint8 (stimuli, 3, T, size, size), and labels.

    frozen: every frame is the first; shuffled: the frames in a drawn order; still noise: the sample's map on an
    isotropic texture; moving noise: its map and its frame numbers on such a texture that drifts at a drawn speed.
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
    """Grey noise without direction whose amplitude falls as 1/f, as in natural images, uint8 (3, H, W).

    It continues over its borders, and has nothing finer than `_SHORTEST_WAVE` pixels.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.divide(1, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    amplitude[frequency > 1 / _SHORTEST_WAVE] = 0
    texture = np.fft.irfft2(np.fft.rfft2(generator.normal(size=(height, width))) * amplitude, s=(height, width))
    texture = 128 + 40 * texture / texture.std()
    return torch.from_numpy(texture.clip(0, 255).round().astype(np.uint8)).expand(3, height, width)
