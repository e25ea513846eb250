"""Masks: what they blank has no influence on anything, and what never changes is found."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from rich.console import Console

from v3s.commands.audit import AuditConfig, audit
from v3s.commands.check import CheckConfig, check
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.views import View, asked_of
from v3s.features.encoder import Feature, Space
from v3s.features.saved import describe_trained
from v3s.recognizers.of_vectors import require_same_network
from v3s.vectors.collection import open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.search import SearchConfig, search
from v3s.video.decode import Video, read_frames, stream_frames
from v3s.video.index import VideoError, index_video
from v3s.video.light.mask import mask_to_text, read_mask, require_mask, text_to_mask
from v3s.video.planes import plane_lines
from v3s.video.span import seen

QUIET = Console(quiet=True)
HEIGHT, WIDTH = 48, 66
LOGO = np.s_[5:12, 9:30]


def moving(number: int = 0, frames: int = 96) -> NDArray[np.uint8]:
    """A textured picture that moves: (frames, HEIGHT, WIDTH, 3)."""
    generator = np.random.default_rng(number)
    ground = np.kron(generator.integers(30, 256, (60, 60, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    angles = np.arange(frames) / (5 + number)
    places = np.stack([60 + 50 * np.sin(angles), 60 + 50 * np.cos(angles)], axis=1).astype(int)
    return np.stack([ground[top : top + HEIGHT, left : left + WIDTH] for top, left in places])


def with_logo(film: NDArray[np.uint8], colour: int = 200) -> NDArray[np.uint8]:
    film = film.copy()
    film[:, *LOGO] = colour
    return film


def write(path: Path, film: NDArray[np.uint8], codec: str = "ffv1", kind: str = "bgr0", top: int | None = None) -> Path:
    """Write a video; `top` overwrites its upper 16 lines in the file's own planes, where nothing is mixed."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *film.shape[1:3], kind
        stream.options = {"qmin": "3", "qmax": "3"} if codec == "mjpeg" else {}
        for picture in film:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=kind)
            for plane in frame.planes if top is not None else ():
                plane_lines(plane)[: 16 * plane.height // frame.height] = top
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def picture(path: Path, blanked: NDArray[np.bool_]) -> Path:
    tifffile.imwrite(path, blanked.astype(np.uint8) * 255)
    return path


def encoded(frame: av.VideoFrame, kind: str) -> bytes:
    """A frame as PNG, or as JPEG if its pixel format is one of JPEG's."""
    encoder = av.CodecContext.create("mjpeg" if kind.startswith("yuvj") else "png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = frame.height, frame.width, kind, Fraction(1)
    return b"".join(map(bytes, [*encoder.encode(frame.reformat(format=kind)), *encoder.encode(None)]))


def logo_mask(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[LOGO] = True
    return mask


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "bgr0"), ("ffv1", "yuv444p"), ("ffv1", "yuv420p")])
def test_an_overlay_is_found_to_the_pixel(tmp_path: Path, codec: str, pixel_format: str) -> None:
    video = index_video(write(tmp_path / "a.mkv", with_logo(moving()), codec, pixel_format))
    assert video.overlay is not None
    assert np.array_equal(text_to_mask(video.overlay), logo_mask())
    assert video.still_share == pytest.approx(logo_mask().mean(), abs=1e-3)


def test_an_overlay_of_a_lossy_file_is_found_nearly(tmp_path: Path) -> None:
    film = np.kron(with_logo(moving()), np.ones((1, 4, 4, 1))).astype(np.uint8)
    video = index_video(write(tmp_path / "a.mp4", film, "libx264", "yuv420p"))
    truth = np.kron(logo_mask(), np.ones((4, 4))) > 0
    assert video.overlay is not None
    found = text_to_mask(video.overlay)
    assert (found & truth).sum() > 0.75 * truth.sum()
    assert (found & ~truth).sum() < 0.05 * truth.sum()


def test_deep_pictures_and_turned_ones_have_overlays_too(tmp_path: Path) -> None:
    deep = with_logo(moving())[..., 0].astype(np.uint16) * 3 + 100
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    video = index_video(tmp_path / "deep.tif")
    assert video.overlay is not None
    assert np.array_equal(text_to_mask(video.overlay), logo_mask())
    black = read_frames(seen(video, None, "auto"), [0]).rgb()[0].permute(1, 2, 0).numpy()
    assert not black[LOGO].any()


@pytest.mark.parametrize("film", [moving(), moving()[:1].repeat(96, axis=0), with_logo(moving(frames=40))])
def test_no_overlay_in_a_moving_picture_a_still_one_or_a_few_frames(tmp_path: Path, film: NDArray[np.uint8]) -> None:
    video = index_video(write(tmp_path / "a.mkv", film))
    assert video.overlay is None
    assert torch.equal(read_frames(seen(video, None, "auto"), [3]).rgb(), read_frames(video, [3]).rgb())
    still = (film == film[0]).all()
    assert video.still_share == (1.0 if still else 0.0)


def test_black_bars_are_no_overlay(tmp_path: Path) -> None:
    film = moving()
    film[:, :8], film[:, -8:] = 0, 10
    assert index_video(write(tmp_path / "a.mkv", film)).overlay is None


def clips_of(video: Video) -> Iterator[torch.Tensor]:
    yield read_frames(video, [0, 50, 3]).rgb()
    yield from (part.rgb() for part in stream_frames(video, range(20, 60), at_once=16))


@pytest.mark.parametrize("pixel_format", ["bgr0", "yuv444p", "yuv420p", "yuvj420p", "gray"])
def test_masked_pixels_have_no_influence(tmp_path: Path, pixel_format: str) -> None:
    area = np.zeros((HEIGHT, WIDTH), bool)
    area[:16] = True  # whole blocks of a JPEG picture, each of which holds 16 x 16 pixels
    codec, mask = "mjpeg" if pixel_format == "yuvj420p" else "ffv1", mask_to_text(area)
    films = [moving()] * 3
    indices = [
        index_video(write(tmp_path / f"{value}.mkv", film, codec, pixel_format, value))
        for value, film in zip((None, 255, 3), films, strict=True)
    ]
    first, *others = [list(clips_of(seen(index, None, mask))) for index in indices]
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert not torch.equal(read_frames(indices[0], [0]).rgb(), read_frames(indices[1], [0]).rgb())
    assert int(first[0][:, :, 6:11, 12:28].max()) <= 1
    kept = read_frames(indices[0], [0]).rgb()[0, :, 20:]
    assert torch.equal(first[0][0, :, 20:], kept)


@pytest.mark.parametrize("pixel_format", ["yuv", "rgb", "jpeg"])
def test_masked_pixels_do_not_enter_a_store(tmp_path: Path, pixel_format: str) -> None:
    mask = picture(tmp_path / "m.tif", logo_mask())
    shown = []
    for number, film in enumerate((with_logo(moving(), 255), with_logo(moving(), 9))):
        (tmp_path / f"v{number}").mkdir()
        write(tmp_path / f"v{number}" / "a.mkv", film)
        store = prepare(
            PrepareConfig(
                data=str(tmp_path / f"v{number}"), out=str(tmp_path / f"s{number}"), short_side=32, workers=1,
                pixel_format=pixel_format, mask=str(mask),  # type: ignore[arg-type]
            ),
            console=QUIET,
        )  # fmt: skip
        shown.append(read_frames(store.files["a.mkv"].outcome, [0, 40]).rgb())  # type: ignore[arg-type]
    assert torch.equal(*shown)
    assert int(shown[0][:, :, 5:7, 8:18].max()) < 20


def test_a_store_is_masked_as_its_videos_are(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    film = write(tmp_path / "v" / "a.mkv", with_logo(moving()))
    config = PrepareConfig(
        data=str(tmp_path / "v"), out=str(tmp_path / "s"), pixel_format="rgb", workers=1, mask="auto"
    )
    store = prepare(config, console=QUIET)
    stored = read_frames(store.files["a.mkv"].outcome, [7]).rgb()  # type: ignore[arg-type]
    assert torch.equal(stored, read_frames(seen(index_video(film), None, "auto"), [7]).rgb())
    with pytest.raises(ValueError, match="mask was auto, now None"):
        prepare(replace(config, mask=None), console=QUIET)
    with pytest.raises(ValueError, match="was stored with the mask auto, not none: give that with --mask"):
        scan(list_videos(str(tmp_path / "s")), min_frames=1)
    listed = list_videos(str(tmp_path / "s"), spans=SpanOptions(mask="auto").spans_for())
    assert scan(listed, min_frames=1).num_usable == 1


def test_a_turned_video_is_masked_as_it_is_shown(tmp_path: Path) -> None:
    mask = mask_to_text(logo_mask(WIDTH, HEIGHT))
    plain = index_video(write(tmp_path / "a.mkv", moving()))
    turned = replace(plain, rotation=90, height=WIDTH, width=HEIGHT)
    shown = read_frames(seen(turned, None, mask), [2]).rgb()[0].permute(1, 2, 0).numpy()
    expected = np.rot90(moving()[2]).copy()
    expected[LOGO] = 0
    assert np.array_equal(shown, expected)
    assert np.array_equal(turned.orientation.as_stored(turned.orientation.upright(moving()[2])), moving()[2])


def test_a_mask_is_stretched_over_frames_and_takes_every_pixel_that_it_touches(tmp_path: Path) -> None:
    video = index_video(write(tmp_path / "a.mkv", moving()))
    large = np.zeros((2 * HEIGHT, 2 * WIDTH), bool)
    large[11, 13] = True
    shown = read_frames(seen(video, None, mask_to_text(large)), [0]).rgb()[0].permute(1, 2, 0).numpy()
    expected = moving()[0].copy()
    expected[5, 6] = 0
    assert np.array_equal(shown, expected)
    small = np.zeros((HEIGHT // 3, WIDTH // 3), bool)
    small[2, 4] = True
    shown = read_frames(seen(video, None, mask_to_text(small)), [0]).rgb()[0].permute(1, 2, 0).numpy()
    assert not shown[6:9, 12:15].any()
    assert np.array_equal(shown[9:], moving()[0][9:])


def test_text_and_masks_are_one(tmp_path: Path) -> None:
    for mask in (logo_mask(), ~logo_mask(), np.array([[True, False], [False, True]])):
        assert np.array_equal(text_to_mask(mask_to_text(mask)), mask)


def test_two_masks_of_equal_area_are_not_the_same() -> None:
    """Not for stored vectors, nor for a recognizer on them; the message tells them apart."""
    one, other = (mask_to_text(mask) for mask in (logo_mask(), logo_mask()[::-1, ::-1]))
    for text, is_same in ((one, True), (other, False)):
        asked, own = asked_of(View(mask=one), SimpleNamespace(mask=text))["mask"]
        assert (asked == own) == is_same
    ours, theirs = (Space("0" * 64, View(mask=text), Feature("conv5", "mean")) for text in (one, other))
    classifier: Any = SimpleNamespace(recognition=SimpleNamespace(average="logits"), space=ours)
    same, differing = (
        cast(Any, SimpleNamespace(folder="v", description=SimpleNamespace(space=space))) for space in (ours, theirs)
    )
    require_same_network(classifier, same)
    with pytest.raises(VectorsError, match=r"mask is a picture of (.*%) \(.*whose mask is a picture of \1 \("):
        require_same_network(classifier, differing)


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "no.png",
        "3x2",
        "3x2:1,2",
        "0x0:",
        "3x2:-1,7",
        "99999999x99999999:1",
        "2x2:4,x",
        "-1x-1:1",
        "3x2:" + "9" * 40,
    ],
)
def test_a_forged_mask_is_refused_and_no_file_is_read(forged: str) -> None:
    with pytest.raises(ValueError, match="mask is"):
        require_mask(forged)
    with pytest.raises(ValueError, match="mask is"):
        View(mask=forged)


def test_a_mask_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    full, empty = (picture(tmp_path / f"{value}.tif", np.full((9, 9), value, bool)) for value in (True, False))
    several = picture(tmp_path / "several.tif", np.stack([logo_mask()] * 5))
    write(tmp_path / "animated.apng", moving()[:3], "apng", "rgb24").rename(tmp_path / "animated.png")
    write(tmp_path / "animated.gif", moving()[:3], "gif", "rgb8")
    one = "a frame in a folder, or a mask, is one"
    for file, reason in (
        (several, f"cannot be read: it holds 5 pictures; {one}; give auto, none, or a picture"),
        (tmp_path / "animated.png", f"cannot be read: it is an animated PNG; {one} picture; give auto, none, or a"),
        (tmp_path / "animated.gif", "does not have the name of a picture"),
        (tmp_path / "none.png", "is not a file; give auto, none, or a picture"),
        (tmp_path, "is not a file"),
        (tmp_path / "text.png", "cannot be read"),
        (full, "blanks every pixel: its darkest is 255 of 255"),
        (empty, "blanks no pixel: its brightest is 0 of 255"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            CheckConfig(data=str(tmp_path), mask=str(file))
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("png", "gray"), ("png", "gray16be"), ("png", "rgb24"), ("png", "monob"), ("jpg", "yuvj420p")],
)
def test_pictures_of_all_kinds_name_the_same_pixels(tmp_path: Path, ending: str, kind: str) -> None:
    grey = logo_mask().astype(np.uint8) * 255
    (tmp_path / f"m.{ending}").write_bytes(encoded(av.VideoFrame.from_ndarray(grey, format="gray"), kind))
    mask = read_mask(str(tmp_path / f"m.{ending}"))
    assert mask
    differing = text_to_mask(mask) != logo_mask()
    differing[3:14, 7:32] &= ending == "png"  # JPEG blurs the border
    assert not differing.any()


def test_what_is_transparent_is_not_white(tmp_path: Path) -> None:
    drawn = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    drawn[..., 3] = logo_mask() * 255
    (tmp_path / "m.png").write_bytes(encoded(av.VideoFrame.from_ndarray(drawn, format="rgba"), "rgba"))
    assert read_mask(str(tmp_path / "m.png")) == mask_to_text(logo_mask())


def test_a_mask_picture_is_turned_as_it_says(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(logo_mask().astype(np.uint8) * 255, format="gray")
    picture, turned = (
        encoded(frame, "yuvj420p"),
        bytes.fromhex("4578696600004d4d002a000000080001011200030000000100060000"),
    )
    segment = b"\xff\xe1" + (len(turned) + 6).to_bytes(2, "big") + turned + bytes(4)
    plain, tagged = tmp_path / "plain.jpg", tmp_path / "tagged.jpg"
    plain.write_bytes(picture)
    tagged.write_bytes(picture[:2] + segment + picture[2:])  # EXIF: shown after a quarter turn to the right
    masks = [text_to_mask(str(read_mask(str(path)))) for path in (plain, tagged)]
    assert np.array_equal(masks[1], np.rot90(masks[0], -1))
    tifffile.imwrite(tmp_path / "m.tif", logo_mask().astype(np.uint8) * 255, extratags=[(274, 3, 1, 6, True)])
    assert np.array_equal(text_to_mask(str(read_mask(str(tmp_path / "m.tif")))), np.rot90(logo_mask(), -1))


def test_a_mask_of_another_shape_is_said_of_each_file(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", moving())
    write(tmp_path / "b.mkv", moving()[:, :, :HEIGHT])
    mask = picture(tmp_path / "m.tif", logo_mask())
    found = check(CheckConfig(data=str(tmp_path), mask=str(mask)), console=QUIET)
    assert found.skipped["b.mkv"] == "has frames of 48x48; the mask is 66x48, of another shape"
    assert found.reports[0].blanked == pytest.approx(logo_mask().mean(), abs=1e-4)
    with pytest.raises(VideoError, match=r"b\.mkv: has frames of 48x48"):
        View(mask=read_mask(str(mask))).sample(index_video(tmp_path / "b.mkv"))


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos, the same in both folders but for the colour of the logo."""
    folder = tmp_path_factory.mktemp("masked")
    for name, colour in (("white", 240), ("grey", 90)):
        (folder / name).mkdir()
        for number in range(6):
            write(folder / name / f"{number}.mkv", with_logo(moving(number), colour))
    picture(folder / "m.tif", logo_mask())
    return folder


@pytest.mark.parametrize("choice", ["auto", "picture"])
def test_a_network_trained_with_a_mask_sees_masked_clips_everywhere(
    two_folders: Path, tmp_path: Path, choice: str
) -> None:
    mask, white = "auto" if choice == "auto" else str(two_folders / "m.tif"), str(two_folders / "white")
    training = PretrainConfig(
        data=white, out=str(tmp_path / "run"), mask=mask, backbone="r3d18", width=0.125, clip_frames=8, clip_size=32,
        epochs=1, batch_size=2, workers=0, precision="fp32",
    )  # fmt: skip
    pretrain(training, console=QUIET)
    assert describe_trained(tmp_path / "run").mask == ("auto" if choice == "auto" else mask_to_text(logo_mask()))
    vectors = {}
    for name in ("white", "grey"):
        config = EmbedConfig(
            data=str(two_folders / name),
            backbone=str(tmp_path / "run"),
            workers=0,
            num_clips=2,
            out=str(tmp_path / name),
        )
        embed(config, console=QUIET)
        embed(replace(config, out=str(tmp_path / f"bare {name}"), mask="none"), console=QUIET)
        for kind in (name, f"bare {name}"):
            vectors[kind] = open_vectors(tmp_path / kind).take(torch.arange(6))
    assert torch.equal(vectors["white"], vectors["grey"])
    assert not torch.equal(vectors["bare white"], vectors["bare grey"])
    found = search(SearchConfig(query=f"{white}/3.mkv", vectors=str(tmp_path / "grey"), k=1), console=QUIET)
    assert found[0].path == "3.mkv"
    assert found[0].score == pytest.approx(1, abs=1e-3)
    audit(AuditConfig(data=white, backbone=str(tmp_path / "run"), page=str(tmp_path / "a.html"), clips=1, workers=0),
          console=QUIET)  # fmt: skip
    assert "6 of 6 files have blank pixels: 4.6%" in (tmp_path / "a.html").read_text()
