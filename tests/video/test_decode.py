"""Reading frames: every pixel against a plain sequential decode, whatever was asked for in whatever order."""

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from v3s.video.decode import VideoError, VideoIndex, index_video, plan_stretches, read_frames, stream_frames
from v3s.video.frames import Frames
from v3s.video.planes import Layout, PlaneReader, layout_of

HEIGHT, WIDTH = 80, 112
ENCODINGS = {
    "mpeg4.avi": ("mpeg4", {"g": "12"}),
    "mpeg4_b_frames.mp4": ("mpeg4", {"bf": "2", "g": "15"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2", "g": "15"}),
    "h264_long_groups.mp4": ("libx264", {"bf": "3", "g": "30", "sc_threshold": "0"}),
    "h264_open_groups.mkv": ("libx264", {"bf": "3", "g": "15", "x264-params": "open-gop=1:scenecut=0"}),
    "h264_pyramid.mp4": ("libx264", {"bf": "8", "g": "20", "x264-params": "b-pyramid=normal:b-adapt=0"}),
    "h264_intra_refresh.mp4": ("libx264", {"g": "20", "x264-params": "intra-refresh=1"}),
    "h264_b_frames.avi": ("libx264", {"bf": "3", "g": "15"}),
    "h264.ts": ("libx264", {"bf": "3", "g": "15"}),
    "h264.flv": ("libx264", {"bf": "3", "g": "15"}),
    "hevc.mp4": ("libx265", {"g": "20", "x265-params": "log-level=none:open-gop=1"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "cpu-used": "8"}),
    "mjpeg.avi": ("mjpeg", {}),
    "animation.gif": ("gif", {}),
    "windows.wmv": ("wmv2", {"g": "15"}),
}


def write_video(path: Path, codec: str, times: Sequence[int], rotation: int = 0, **options: str) -> Path:
    """Encode a moving pattern under a bright top edge, one frame at each time in thirtieths of a second."""
    pattern = np.random.default_rng(0).integers(0, 200, (8, 14, 3), dtype=np.uint8)
    pixel_format = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixel_format
        stream.codec_context.time_base = Fraction(1, 30)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            image = np.kron(pattern, np.ones((10, 8, 1), np.uint8))
            image = np.roll(image, 3 * number, axis=1)
            image[:10] = 250
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            output.mux(stream.encode(frame.reformat(format=pixel_format)))
        output.mux(stream.encode(None))
    return path


def decode_in_sequence(path: Path, numbers: Sequence[int], layout: Layout | None = None) -> Frames:
    """The oracle: decode everything in order and keep the planes, by default in the first frame's layout."""
    wanted = {}
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1  # damage is patched up differently on several
        for number, frame in enumerate(container.decode(stream)):
            layout = layout or layout_of(frame)
            if number in numbers:
                wanted[number] = upright_planes(frame, layout)
    groups = zip(*(wanted[number] for number in numbers), strict=True)
    assert layout is not None
    return Frames(tuple(torch.from_numpy(np.stack(group)) for group in groups), layout.colour)


def upright_planes(frame: av.VideoFrame, layout: Layout) -> list[np.ndarray]:
    """Copies of a frame's planes: its buffer goes back, and a frame that fails to decode shows what it held."""
    return [np.rot90(np.stack(group), frame.rotation // 90, (1, 2)) for group in PlaneReader(layout)(frame)]


def same(some: Frames, others: Frames) -> bool:
    """Whether frames are equal to the bit."""
    return some.colour == others.colour and all(map(torch.equal, some.planes, others.planes))


def ffmpeg_rgb(path: Path, numbers: Sequence[int]) -> Tensor:
    """The first frames, converted to RGB by FFmpeg with the matrix and range that the file states."""
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = [
            frame.to_ndarray(format="rgb24") for _, frame in zip(numbers, container.decode(video=0), strict=False)
        ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def draw_requests(num_frames: int, generator: random.Random) -> list[list[int]]:
    """A strided clip backwards, the last frames, and frames in any order with repeats."""
    stride = generator.randint(1, 5)
    start, late = generator.randrange(num_frames), max(0, num_frames - 10)
    clip = [min(start + stride * step, num_frames - 1) for step in range(16)]
    anywhere = [generator.randrange(num_frames) for _ in range(4)]
    return [clip[::-1], list(range(late, num_frames)), anywhere + anywhere[:2]]


def assert_exact(path: Path, generator: random.Random) -> VideoIndex:
    index = index_video(path)
    requests = draw_requests(index.num_frames, generator)
    numbers = sorted({number for request in requests for number in request})
    oracle, place = decode_in_sequence(path, numbers), {number: place for place, number in enumerate(numbers)}
    for request in requests:
        frames = read_frames(index, request)
        assert (len(frames), frames.height, frames.width) == (len(request), index.height, index.width)
        assert same(frames, oracle[[place[number] for number in request]]), f"{path.name}: frames {request}"
    return index


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings_are_exact(tmp_path: Path, name: str) -> None:
    codec, options = ENCODINGS[name]
    index = assert_exact(write_video(tmp_path / name, codec, range(70), 0, **options), random.Random(0))
    assert index.num_frames == 70


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_is_exact(tmp_path: Path, suffix: str) -> None:
    times = np.cumsum(np.random.default_rng(1).integers(1, 6, 80)).tolist()
    index = assert_exact(write_video(tmp_path / f"a.{suffix}", "libx264", times, g="15", bf="2"), random.Random(1))
    assert (index.num_frames, index.packets_match) == (80, True)
    assert index.key_frames


def test_skipping_and_seeking_change_no_pixel(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(90), bf="3", g="30", sc_threshold="0")
    index = index_video(path)
    assert index.packets_match
    assert index.key_frames == (30, 60)
    plain = read_frames(replace(index, packets_match=False, key_frames=()), range(90))
    for stride in range(1, 6):
        for start in range(0, 90 - 3 * stride, 7):
            numbers = range(start, start + 4 * stride, stride)
            assert same(read_frames(index, numbers), plain[list(numbers)])


def test_a_seek_that_fails_in_a_newly_opened_file_is_not_needed(tmp_path: Path) -> None:
    """RealMedia finds some key frames only once it has read up to them, as the pass that indexed the file had."""
    path = write_video(tmp_path / "a.rm", "rv10", range(70), g="13")
    index = index_video(path)
    assert index.key_frames
    for number in index.key_frames:
        assert same(read_frames(index, [number]), decode_in_sequence(path, [number]))
    parts = stream_frames(index, index.key_frames, at_once=2)
    assert sum(map(len, parts)) == len(index.key_frames)


def test_damaged_bytes_are_refused_or_read_in_sequence(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(60), g="20", sc_threshold="0", bf="2")
    data, generator, num_patched = path.read_bytes(), random.Random(5), 0
    for place in range(1000, len(data) - 3000, 800):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            index = assert_exact(path, generator)
        except VideoError:
            continue
        num_patched += index.num_corrupt > 0
        assert index.num_corrupt == 0 or (index.key_frames, index.packets_match) == ((), False)
    assert num_patched > 0


def test_errors_that_the_decoder_conceals_are_read_in_sequence(tmp_path: Path) -> None:
    """A slice whose header is wrong is not decoded, and its frame, marked as sound, keeps what the buffer held."""
    path = write_video(tmp_path / "a.mp4", "libx264", range(60), g="20", sc_threshold="0", bf="2")
    with av.open(str(path)) as container:
        places = [packet.pos + 9 for packet in container.demux(video=0) if packet.pos and packet.size > 9]
    data, generator, num_concealed = path.read_bytes(), random.Random(5), 0
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 52]) + data[place + 1 :])
        try:
            index = assert_exact(path, generator)
        except VideoError:
            continue
        num_concealed += index.num_corrupt == 0 and not index.packets_match
    assert num_concealed > 0


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_rotation_is_applied_counter_clockwise(tmp_path: Path, turn: int) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(3), turn)
    frame = read_frames(index_video(path), [1]).planes[0][0, 0].float()
    edges = {"top": frame[:6], "left": frame[:, :6], "bottom": frame[-6:], "right": frame[:, -6:]}
    brightest = max(edges, key=lambda name: edges[name].mean().item())
    assert brightest == {0: "top", 90: "left", 180: "bottom", -90: "right"}[turn]


def test_planes_are_those_of_the_codec(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", range(5)))
    frames = read_frames(index, [3, 1])
    assert [plane.shape for plane in frames.planes] == [(2, 1, HEIGHT, WIDTH), (2, 2, HEIGHT // 2, WIDTH // 2)]
    assert read_frames(index, []).rgb().shape == (0, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "name", ["bt601_full_range", "bt601_limited_range", "bt709_full_range", "testsrc2_444_8bit_hevc"]
)
def test_colours_are_those_of_ffmpeg(shared: Path, name: str) -> None:
    """Matrix and range are the file's own. FFmpeg's fast conversion cuts off where ours rounds: up to 3 levels."""
    path = shared / "data" / "odd" / f"{name}.mp4"
    ours = read_frames(index_video(path), range(4)).rgb().double()
    difference = ours - ffmpeg_rgb(path, range(4))
    assert difference.abs().max() <= 3
    assert difference.mean().abs() < 1


def test_runs_jump_only_where_that_saves_decoding(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", range(90), g="30", sc_threshold="0"))
    assert plan_stretches(index, [0, 29]) == [(None, [0, 29])]
    assert plan_stretches(index, [35, 59]) == [(30, [35, 59])]
    assert plan_stretches(index, [28, 31]) == [(None, [28, 31])]
    assert plan_stretches(index, [3, 35, 36, 89]) == [(None, [3]), (30, [35, 36]), (60, [89])]


@pytest.mark.parametrize("number", [-1, 5])
def test_number_out_of_range(tmp_path: Path, number: int) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", range(5)))
    with pytest.raises(VideoError, match=rf"a\.mp4: has frames 0 to 4; frame {number} was asked for"):
        read_frames(index, [0, number])


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    index = index_video(write_video(path, "libx264", range(20)))
    write_video(path, "libx264", range(10))
    with pytest.raises(VideoError, match="changed since; index it again"):
        read_frames(index, [2])
    with pytest.raises(VideoError, match="changed since; index it again"):  # the same size, but not the frames
        read_frames(replace(index, num_bytes=path.stat().st_size), [15])
    path.unlink()
    with pytest.raises(VideoError, match="does not exist"):
        read_frames(index, [2])


def test_wrong_key_frame_costs_time_but_no_exactness(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(60), g="30", sc_threshold="0", bf="2")
    index = index_video(path)
    assert index.key_frames == (30,)
    assert same(read_frames(replace(index, key_frames=(40,)), [50]), decode_in_sequence(path, [50]))


def joined(path: Path, parts: Sequence[tuple[Path, bytes]]) -> Path:
    """The packets of several files under the container's header of the first; bytes go before a part's first packet."""
    with av.open(str(parts[0][0])) as first, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(first.streams.video[0])
        number = 0
        for part, headers in parts:
            with av.open(str(part)) as source:
                for packet in source.demux(video=0):
                    if packet.size:
                        copy = av.Packet(headers + bytes(packet))
                        copy.pts = copy.dts = number
                        copy.time_base, copy.is_keyframe, copy.stream = Fraction(1, 30), packet.is_keyframe, stream
                        output.mux(copy)
                        number, headers = number + 1, b""
    return path


def stated_headers(path: Path) -> bytes:
    """The two headers that an MP4 of H.264 states for the decoder, as they lie in a packet: each after its length."""
    with av.open(str(path)) as container:
        stated = container.streams.video[0].codec_context.extradata
    assert stated is not None
    middle = 8 + int.from_bytes(stated[6:8], "big")
    end = middle + 3 + int.from_bytes(stated[middle + 1 : middle + 3], "big")
    return b"\0\0" + stated[6:middle] + b"\0\0" + stated[middle + 1 : end]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_header_that_changes_on_the_way_is_not_jumped_over(ending: str, tmp_path: Path) -> None:
    """It comes but once: a decoder that jumps over it shows the second part in the colours of the first header."""
    one, two = (
        write_video(
            tmp_path / f"{offset}.mp4", "libx264", range(60), g="20", sc_threshold="0", bf="0", chromaoffset=str(offset)
        )
        for offset in (-8, 8)
    )
    path = joined(tmp_path / f"a.{ending}", [(one, b""), (two, stated_headers(two)), (one, stated_headers(one))])
    index = index_video(path)
    assert index.key_frames == (60, 120)
    for wanted in ([50], [90], [170], [70, 170], [5, 100, 130]):
        assert same(read_frames(index, wanted), decode_in_sequence(path, wanted))
    repeated = joined(tmp_path / f"b.{ending}", [(one, b""), (one, stated_headers(one)), (one, b"")])
    assert index_video(repeated).key_frames == tuple(range(20, 180, 20))


def test_what_a_decoder_remembers_of_an_earlier_header_is_not_jumped_over(tmp_path: Path) -> None:
    """The third part states no range of its values: from the start they have that of the second, from there none."""
    same_cuts = {"g": "20", "sc_threshold": "0", "bf": "0"}
    one = write_video(tmp_path / "1.mp4", "libx264", range(40), 0, **same_cuts)
    two = write_video(tmp_path / "2.mp4", "libx264", range(40), 0, **same_cuts, color_range="pc")
    path = joined(tmp_path / "a.mkv", [(one, b""), (two, stated_headers(two)), (one, stated_headers(one))])
    index = index_video(path)
    assert index.is_mixed
    for number in (10, 50, 79, 90, 119):
        assert same(read_frames(index, [number]), decode_in_sequence(path, [number], index.layout))


def test_a_file_that_needs_probing_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that take away the times of packets stand for a file whose times are known only after probing."""
    path = write_video(tmp_path / "a.avi", "mpeg4", range(60), g="20")
    known = index_video(path)
    oracle = decode_in_sequence(path, [5, 45])
    assert (known.known_format, known.key_frames) == ("avi", (20, 40))
    monkeypatch.setattr("v3s.video.container.NO_PROBING", {"fflags": "nofillin+noparse"})
    assert replace(known, known_format=None) == index_video(path)
    assert same(read_frames(known, [5, 45]), oracle)  # an index that is wrong costs time, but no exactness


PALETTES = {"pal8.avi": ("rawvideo", "pal8"), "pal8.mov": ("rawvideo", "pal8"), "png.avi": ("png", "pal8"),
            "grey.mov": ("qtrle", "gray")}  # fmt: skip


@pytest.mark.parametrize("name", PALETTES)
def test_a_palette_that_comes_but_once_is_part_of_the_picture(name: str, tmp_path: Path) -> None:
    """A jump to a key frame skips the packet that brings the palette: without it the same numbers are black."""
    codec, pixel_format = PALETTES[name]
    palette = np.random.default_rng(0).integers(30, 256, (256, 4), np.uint8)
    path = tmp_path / name
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        for number in range(60):
            frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
            values = np.random.default_rng(number).integers(0, 256, frame.planes[0].buffer_size, np.uint8)
            frame.planes[0].update(values.tobytes())
            if pixel_format == "pal8":
                frame.planes[1].update(palette.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    index = index_video(path)
    whole = read_frames(index, range(60))
    assert index.key_frames == (12, 24, 36, 48)
    assert whole.rgb().double().mean() > 60
    assert same(read_frames(index, [2, 50]), whole[[2, 50]])
    for start in (0, 13, 30, 44):
        assert same(read_frames(index, range(start, start + 16)), whole[list(range(start, start + 16))])
    assert same(whole, decode_in_sequence(path, range(60)))


@pytest.mark.parametrize("changes_at", [[25], [25, 40], [13, 14, 15], [5, 30]])
def test_a_palette_that_changes_is_that_of_the_frame(changes_at: list[int], tmp_path: Path) -> None:
    """Every change is to the other one of two palettes, and may be back to the first."""
    palettes = np.random.default_rng(0).integers(30, 256, (2, 256, 4), np.uint8)
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("rawvideo", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "pal8"
        for number in range(60):
            frame = av.VideoFrame(WIDTH, HEIGHT, "pal8")
            values = np.random.default_rng(number).integers(0, 256, frame.planes[0].buffer_size, np.uint8)
            frame.planes[0].update(values.tobytes())
            frame.planes[1].update(palettes[sum(place <= number for place in changes_at) % 2].tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    index, whole = index_video(path), decode_in_sequence(path, range(60))
    assert len({tuple(picture.flatten()[:300].tolist()) for picture in whole.rgb()[[0, 59]]}) == 2
    generator = random.Random(0)
    for start in range(0, 50, 5):
        numbers = [*sorted(generator.sample(range(60), 4)), start]
        assert same(read_frames(index, numbers), whole[numbers])


def test_a_jump_in_a_real_recording_keeps_its_palette(shared: Path) -> None:
    path = shared / "data/cases/04-raw-avi/imagej_8bit.avi"
    alone = read_frames(index_video(path), range(40, 56))
    assert same(alone, decode_in_sequence(path, range(40, 56)))
    assert 53 < alone.rgb().double().mean() < 55


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_a_key_frame_is_proved_on_every_plane(plane: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(60), g="20", sc_threshold="0", bf="0")
    assert index_video(path).key_frames == (20, 40)
    honest, calls = PlaneReader.__call__, iter(range(10**6))

    def changed(self: PlaneReader, frame: av.VideoFrame) -> list[list[np.ndarray]]:
        """One value of one plane is never twice the same."""
        first, others = honest(self, frame)
        planes = [group.copy() for group in (*first, *others)]
        planes[plane][5, 5] = next(calls) % 256
        return [planes[:1], planes[1:]]

    monkeypatch.setattr(PlaneReader, "__call__", changed)
    assert index_video(path).key_frames == ()


def test_memory_stays_flat(tmp_path: Path) -> None:
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("this system does not say how much memory a process holds")
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", range(60), g="20", bf="2"))

    def resident_after(num_reads: int) -> int:
        for start in range(num_reads):
            read_frames(index, range(start % 40, start % 40 + 16))
        return int(status.read_text().split()[1]) * 4096

    before = resident_after(50)
    assert resident_after(300) - before < 10e6


def test_every_real_clip_is_exact(shared: Path) -> None:
    generator = random.Random(2)
    videos = [path for path in sorted((shared / "data" / "clips").iterdir()) if path.suffix]
    assert len(videos) == 16
    for path in videos:
        assert_exact(path, generator)


def test_random_ucf101_clips_are_exact(shared: Path) -> None:
    generator = random.Random(3)
    for path in generator.sample(sorted((shared / "data" / "UCF-101").glob("*/*.avi")), 20):
        assert_exact(path, generator)


def test_every_odd_file_is_exact_or_refused_with_a_reason(shared: Path) -> None:
    generator, refused = random.Random(4), []
    for path in sorted((shared / "data" / "odd").iterdir()):
        try:
            assert_exact(path, generator)
        except VideoError as error:
            refused.append(str(error).removeprefix(f"{path.parent}/").split(":")[0])
    assert refused == [
        "decord_corrupted.mp4",
        "reproduce_seek_bug.wav",
        "small_AudioVideoInterleave.avi",
        "small_FlashVideo.flv",
        "small_Mpeg4.mp4",
        "small_WindowsMediaVideo.wmv",
        "small_gif.gif",
        "small_mp3.mp3",
        "small_mp4-with-audio.mp4",
        "small_wav.wav",
    ]
