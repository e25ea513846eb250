"""Dark and flat videos are named, by the values that are shown; those with anything to see are not."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from v3s.video.decode import read_frames
from v3s.video.frames import ColourSpace
from v3s.video.index import index_video
from v3s.video.light.brightness import Brightness

LIMITED, FULL = ColourSpace(), ColourSpace(full=True)


def said(plane: np.ndarray, colour: ColourSpace | None = FULL) -> str | None:
    brightness = Brightness()
    brightness.add([plane] if colour else [plane] * 3, colour)
    return brightness.remark()


def test_what_is_said() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    assert said(np.zeros((64, 96), np.uint8)) == "black throughout"
    assert said(np.full((64, 96), 16, np.uint8), LIMITED) == "black throughout"
    assert said(np.full((64, 96), 200, np.uint8)) == "one colour throughout"
    assert said(noise // 16) == "nearly black: its brightest value is 15 of 255"
    assert said(noise // 16, None) == "nearly black: its brightest value is 15 of 255"
    assert said(16 + noise // 16, LIMITED) == "nearly black: its brightest value is 17 of 255"
    assert said(noise) is None
    assert said(noise // 8) is None
    assert Brightness().remark() is None


def test_a_few_hot_pixels_light_nothing_and_a_lamp_does() -> None:
    night = np.zeros((1024, 1024), np.uint8)
    night[0, 0] = 255
    assert said(night) == "black throughout"
    night[:64, :64] = 255
    assert said(night) is None


@pytest.mark.parametrize("period", range(2, 17))
def test_a_fine_pattern_is_not_flat(period: int) -> None:
    """Stripes across and down of any width, in a picture of any size."""
    for height, width in ((4, 4), (64, 96), (240, 320)):
        stripes = np.where(np.arange(width) % period == 0, 200, 10).astype(np.uint8)
        for pattern in (np.tile(stripes, (height, 1)), np.tile(stripes[:height, None], (1, width))):
            brightness = Brightness()
            for _ in range(5):
                brightness.add([pattern], FULL)
            assert brightness.remark() is None or pattern.max() == pattern.min()


def test_one_colour_is_none_of_several() -> None:
    """Red is flat, though its channels differ; a pattern in blue alone is not."""
    red, other = np.full((64, 96), 255, np.uint8), np.zeros((64, 96), np.uint8)
    brightness = Brightness()
    brightness.add([red, other, other], None)
    assert brightness.remark() == "one colour throughout"
    other[:, 48:] = 200
    brightness.add([red, red * 0, other], None)
    assert brightness.remark() is None


def test_frames_that_are_looked_at() -> None:
    looked_at = [number for number in range(200) if Brightness.looks_at(number)]
    assert looked_at == [0, 1, 2, 4, 8, 16, 32, 64, 128, 192]


@pytest.mark.parametrize(("levels", "remarks"), [((0, 0), ("black throughout",)), ((0, 4095), ()), ((0, 65535), ())])
def test_twelve_bits_in_sixteen(levels: tuple[int, int], remarks: tuple[str, ...], tmp_path: Path) -> None:
    """A camera of 12 bits in a format of 16 is not black, as its window shows."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "gray16le"
        for number in range(20):
            values = np.linspace(*levels, 96 * 64).astype(np.uint16).reshape(64, 96)
            frame = av.VideoFrame.from_ndarray(np.roll(values, number, 1), format="gray16le")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    index = index_video(path)
    assert index.remarks == remarks
    assert index.window == pytest.approx(levels, abs=levels[1] / 500)
    assert int(read_frames(index, [0, 19]).rgb().max()) == (255 if levels[1] else 0)


def test_cases(shared: Path) -> None:
    cases = shared / "data/cases"
    assert index_video(cases / "14-fps/black.mp4").remarks == ("black throughout",)
    deep = index_video(cases / "04-raw-avi/ffv1_12in16.mkv")
    assert deep.remarks == ()
    assert deep.window is not None
    assert deep.window[1] < 4096
    assert index_video(cases / "03-mirror/plain.mp4").remarks == ()
