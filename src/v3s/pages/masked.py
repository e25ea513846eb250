"""What a mask takes away: frames as they are, and as networks see them."""

from collections.abc import Iterable
from dataclasses import replace
from heapq import nlargest
from typing import NamedTuple

from v3s.files.text import counted, verb
from v3s.pages.images import jpeg_uri, small_frames
from v3s.video.decode import Span, Video
from v3s.video.index import VideoIndex
from v3s.video.light.mask import blanked_share

_NUM_SHOWN, _MOST_WIDTH = 3, 480


class Masked(NamedTuple):
    """What masks take away of some files.

    Attributes:
        sentence: how much is blank.
        pairs: a frame of those that lose most, in the original and as networks see it: data URIs, each with a caption.
    """

    sentence: str
    pairs: list[tuple[tuple[str, str], tuple[str, str]]]


def masked_of(videos: Iterable[Video]) -> Masked | None:
    """Return how much is blanked, and the videos that lose most; None if no file has a mask."""
    files = {video.path: video for video in (each.video if isinstance(each, Span) else each for each in videos)}
    shares = {
        path: blanked_share(video.mask) for path, video in files.items() if isinstance(video, VideoIndex) and video.mask
    }
    if not shares:
        return None
    most = nlargest(_NUM_SHOWN, shares, key=lambda path: shares[path])
    mean = sum(shares.values()) / len(files)
    sentence = (
        f"{len(shares):,} of {counted(len(files), 'file')} {verb(len(shares), 'have')} blank pixels: {mean:.1%} of the "
        f"picture on average of all files, {shares[most[0]]:.1%} at most. Below: the middle frame of those that lose "
        "most, in the original and as networks see it. The shape of a blank area may itself reveal a label."
    )
    return Masked(sentence, [_pair(files[path], shares[path]) for path in most])


def _pair(video: Video, share: float) -> tuple[tuple[str, str], tuple[str, str]]:
    assert isinstance(video, VideoIndex)
    middle, plain = [video.num_frames // 2], replace(video, mask=None)
    before, after = (jpeg_uri(small_frames(each, middle, _MOST_WIDTH)[0]) for each in (plain, video))
    return (before, f"{video.path}: as it is"), (after, f"masked: {share:.1%} is blank")
