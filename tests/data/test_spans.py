"""Spans: segments, spans of a list, and clips of the same instants whatever the file's rate."""

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from v3s.data.clips import PretextClips
from v3s.data.groups import GAP_SECONDS, GroupOptions, hold_out_rows, stretches
from v3s.data.index_table import IndexTable
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import list_videos
from v3s.data.reports import FileReport, rate_advice
from v3s.data.scan import Scan, scan
from v3s.data.spans import usual_rate
from v3s.data.streams import complete_rows, load_runs, plan_runs
from v3s.data.views import View, read_clips
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.vectors.cutouts import write_cutouts
from v3s.vectors.entries import Entry, Place
from v3s.vectors.moments import Moment, video_of
from v3s.vectors.query import asked_span
from v3s.video.container import VideoError
from v3s.video.decode import read_frames, stream_frames
from v3s.video.index import VideoIndex, index_video
from v3s.video.span import Span, nearest_frame, span_of, time_of_frame


def write(path: Path, times: list[float], *, keys: int = 12, codec: str = "libx264") -> Path:
    """Write a video whose frame k is shown at times[k] seconds, and shows how many fiftieths of a second that is."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=50)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"g": str(keys), "crf": "10", "sc_threshold": "0"}
        for time in times:
            picture = np.full((48, 64, 3), 16 + 2 * (round(50 * time) % 100), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steady(path: Path, fps: int, seconds: float, *, keys: int = 12) -> Path:
    return write(path, [number / fps for number in range(round(seconds * fps))], keys=keys)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12.3 seconds at 25 frames per second, with a key frame every 12 frames."""
    return index_video(steady(tmp_path_factory.mktemp("recording") / "a.mp4", 25, 12.3))


def cut(video: VideoIndex, **options: Any) -> list[tuple[float, float, int]]:
    spans = SpanOptions(**options).cut(video, None)
    return [(round(span.start_seconds, 3), round(span.end_seconds, 3), span.num_frames) for span in spans]


def test_segments_follow_one_another_and_a_rest_of_half_a_segment_counts(recording: VideoIndex) -> None:
    assert cut(recording, segment=5) == [(0, 5, 125), (5, 10, 125)], "2.3 s are less than half"
    assert cut(recording, segment=4) == [(0, 4, 100), (4, 8, 100), (8, 12, 100)]
    assert cut(recording, segment=8) == [(0, 8, 200), (8, round(recording.duration_seconds, 3), 108)]
    assert cut(recording, segment=8, segment_stride=2, fps=10)[:2] == [(0, 8, 80), (2, 10, 80)]
    assert cut(recording, segment=20) == [(0, round(recording.duration_seconds, 3), 308)], (
        "a shorter file is one segment"
    )


def test_segments_tile_the_file(recording: VideoIndex) -> None:
    spans = SpanOptions(segment=0.7).cut(recording, None)
    frames = [frame for span in spans for frame in span.source_frames(range(span.num_frames))]
    assert frames == list(range(len(frames)))
    assert recording.num_frames - len(frames) < 0.7 * 25


@pytest.mark.parametrize("fps", [15, 30, 60, 25])
def test_the_same_motion_at_any_rate_gives_the_same_instants(tmp_path: Path, fps: int) -> None:
    for suffix in ("mp4", "mkv"):  # the second rounds times to milliseconds
        video = index_video(steady(tmp_path / f"a.{suffix}", fps, 4))
        span = span_of(video, 1, 3, rate=5)
        assert span.num_frames == 10
        assert span.source_frames(range(10)) == [round(fps * (1 + k / 5)) for k in range(10)]


def test_ties_take_the_earlier_frame_whatever_the_container_rounds(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv"):
        video = index_video(steady(tmp_path / f"a.{suffix}", 30, 3))
        assert [nearest_frame(video, k / 20) for k in range(5)] == [0, 1, 3, 4, 6], "1.5, 4.5 and 7.5 are ties"


def test_a_varying_rate_is_followed_by_its_time_stamps(tmp_path: Path) -> None:
    times = [number / 50 for number in range(100)] + [2 + number / 10 for number in range(20)]
    video = index_video(write(tmp_path / "a.mkv", times))
    assert video.rate_varies
    span = span_of(video, rate=10)
    assert span.source_frames(range(39)) == [*range(0, 100, 5), *range(100, 119)]
    assert VideoIndex.from_json(video.to_json()) == video


def test_the_frame_nearest_to_a_frames_time_is_itself(tmp_path: Path) -> None:
    times = [number / 50 for number in range(100)] + [2 + number / 10 for number in range(20)]
    video = index_video(write(tmp_path / "a.mkv", times))
    for shown in (video, span_of(video, 1.5, 3), span_of(video, 0.5, 3, rate=7)):
        for number in range(shown.num_frames):
            seconds = time_of_frame(shown, number)
            assert nearest_frame(shown, seconds) == number
            if isinstance(shown, Span) and shown.rate:
                assert seconds == pytest.approx(0.5 + number / 7)
            else:
                first = shown.first if isinstance(shown, Span) else 0
                assert seconds == pytest.approx(times[first + number], abs=1e-3)


def test_a_rate_above_the_files_repeats_frames_and_is_said(tmp_path: Path) -> None:
    steady(tmp_path / "a.mp4", 5, 4)
    result = scan(list_videos(tmp_path, spans=SpanOptions(fps=10)), min_frames=1, cache=None)
    assert result.table[0].num_frames == 40
    assert "5 frames per second, fewer than --fps 10: frames repeat" in result.videos.notes[0]


def test_time_stamps_that_jump_are_said_and_skip_segments(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", [*(number / 25 for number in range(100)), *(20 + number / 25 for number in range(100))])
    result = scan(list_videos(tmp_path, spans=SpanOptions(segment=4)), min_frames=1, cache=None)
    assert [report.start_seconds for report in result.reports] == [0, 20]
    assert any("time stamps jump from 0:00:04.0 to 0:00:20.0" in note for note in result.videos.notes)


def test_a_frame_outside_of_a_span_is_refused(recording: VideoIndex) -> None:
    span = span_of(recording, 1, 2)
    assert torch.equal(read_frames(span, [0, 3]).planes[0], read_frames(recording, [25, 28]).planes[0])
    with pytest.raises(VideoError, match="the span has frames 0 to 24; frame 25 was asked for"):
        read_frames(span, [25])


def scan_list(folder: Path, text: str, **options: Any) -> Scan:
    (folder / "list.csv").write_text(text)
    spans = SpanOptions(**options)
    return scan(list_videos(folder / "list.csv", spans=spans), min_frames=1, cache=None)


def test_a_list_names_spans_with_labels(recording: VideoIndex) -> None:
    folder = Path(recording.path).parent
    result = scan_list(folder, "path,start,end,label\na.mp4,1,3,groom\na.mp4,0:04,,rear\na.mp4,3,4,\n")
    assert result.videos.labels == ("groom", "rear", None)
    assert result.videos.names[0] == "a.mp4 0:00:01.0-0:00:03.0"
    assert result.table.num_frames.tolist() == [50, 208, 25]
    assert len(result.table.offsets) == 2, "one index, however many spans"
    assert result.videos.source.startswith(f"list {folder / 'list.csv'}: 3 spans in 2 classes")
    halved = scan_list(folder, "path,start,end,label\na.mp4,1,3,groom\n", segment=1)
    assert halved.usable_labels == ("groom", "groom")


def test_one_file_is_data(recording: VideoIndex) -> None:
    result = scan(list_videos(recording.path, spans=SpanOptions(segment=3)), min_frames=1, cache=None)
    assert (len(result.table), result.videos.paths[0]) == (4, "a.mp4")


def test_a_file_that_cannot_be_used_is_no_span(tmp_path: Path) -> None:
    steady(tmp_path / "a.mp4", 25, 4)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    result = scan(list_videos(tmp_path, spans=SpanOptions(segment=2)), min_frames=1, cache=None)
    assert len(result.usable) == 2
    assert result.videos.source.endswith("; in segments of 2 s: 2 spans")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4,3,2,x", "line 2: end is 2, which is not after the start, 3"),
        ("a.mp4,one,2,x", "line 2: start is 'one', which is not a time"),
        ("a.mp4,1,2", "line 2: has 3 values, but the header has 4"),
        (",1,2,x", "line 2: has no path"),
        ("a.mp4,1,3,x\na.mp4,2,4,y", "spans with different labels overlap: .*0:00:01.0-0:00:03.0 .'x'. and .*'y'"),
        ("", "contains no spans"),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(recording: VideoIndex, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        scan_list(Path(recording.path).parent, f"path,start,end,label\n{line}\n")
    assert "\n" not in str(caught.value)


def test_a_span_outside_of_its_file_is_reported(recording: VideoIndex) -> None:
    result = scan_list(Path(recording.path).parent, "path,start,end\na.mp4,1,2\na.mp4,11,15\na.mp4,13,14\n")
    assert [report.verdict for report in result.reports] == ["usable", "unreadable", "unreadable"]
    assert result.reports[1].reason == "0:00:11.0 to 0:00:15.0 is outside of the video: it is 0:00:12.3 long"


def test_wrong_options_are_refused() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"segment": 0.0}, "segment is 0.0; it must be more than 0"),
        ({"segment_stride": 2.0}, "without segments"),
        ({"segment": 0.1, "fps": 5.0}, "no frame at 5 frames per second"),
    )
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            SpanOptions(**options)


@pytest.mark.parametrize("options", [SpanOptions(segment=1e-9), SpanOptions(segment=1.0, segment_stride=1e-9)])
def test_segments_without_end_are_refused(options: SpanOptions, recording: VideoIndex) -> None:
    with pytest.raises(ValueError, match=r"one every 1e-09 s would be more than 1,000,000 segments; give a longer"):
        options.cut(recording, None)


def table_of(video: VideoIndex, **options: Any) -> IndexTable:
    return IndexTable.of(SpanOptions(**options).cut(video, None))


def test_a_table_of_spans_keeps_one_index_and_gives_the_spans_back(recording: VideoIndex) -> None:
    table = table_of(recording, segment=2, fps=10)
    assert (len(table), len(table.offsets)) == (6, 2)
    spans = [span for span in table.subset([4, 1]) if isinstance(span, Span)]
    assert [span.start_seconds for span in spans] == [8, 2]
    assert spans[0].video is table.subset([4])._parsed.get(0, spans[0].video)
    assert len(set(table.fingerprints.tolist())) == len(table)


@pytest.mark.parametrize(("keys", "workers"), [(12, 0), (12, 2), (10_000, 0)])
@pytest.mark.parametrize("options", [{"segment": 2, "segment_stride": 1}, {"segment": 3, "fps": 10}, {"segment": 30}])
def test_streamed_clips_are_those_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: int, workers: int, options: dict[str, float]
) -> None:
    """Also where runs cut spans, where spans overlap, and in a file without key frames."""
    monkeypatch.setattr("v3s.data.streams._RUN_BYTES", 3 * 8 * 32**2 * 7)
    video = index_video(steady(tmp_path / "a.mp4", 25, 9, keys=keys))
    table, view = table_of(video, **options), View(clip_frames=8, clip_size=32, num_clips=4, stride=0)
    wanted = [*range(1, len(table)), 0]
    parts = ((run, [clips]) for run, clips in load_runs(table, view, num_workers=workers, videos=wanted))
    streamed = list(complete_rows(parts, table, view, wanted))
    assert [row for row, _ in streamed] == wanted
    for row, (clips,) in streamed:
        assert torch.equal(clips, read_clips(table, row, view, view.clips(int(table.num_frames[row]))))


def test_a_file_without_key_frames_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.data.streams._RUN_BYTES", 3 * 8 * 32**2 * 7)
    view = View(clip_frames=8, clip_size=32, num_clips=4)
    for keys, num_runs in ((12, 3), (10_000, 1)):
        table = table_of(index_video(steady(tmp_path / f"{keys}.mp4", 25, 10, keys=keys)), segment=2)
        assert len(list(plan_runs(table, view, range(len(table))))) == num_runs
        parts = [len(clips) for _, clips in load_runs(table, view, num_workers=0, videos=range(len(table)))]
        assert parts == [7, 7, 6]


def test_streamed_frames_are_those_read_by_number(recording: VideoIndex) -> None:
    wanted = [0, 3, 4, 60, 61, 200, 305]
    parts = list(stream_frames(recording, wanted, at_once=2))
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    whole = torch.cat([part.planes[0] for part in parts])
    assert torch.equal(whole, read_frames(recording, wanted).planes[0])


def test_held_out_spans_are_of_other_files(tmp_path: Path) -> None:
    videos = [index_video(steady(tmp_path / f"{number}.mp4", 10, 20 + number)) for number in range(3)]
    table = IndexTable.of(span for video in videos for span in SpanOptions(segment=2).cut(video, None))
    for seed in range(5):
        train, held = hold_out_rows(table, 5, seed, table.sources)
        assert len(held) == 5
        assert not set(table.sources[train].tolist()) & set(table.sources[held].tolist())


def test_any_file_may_be_held_out_and_copies_count_as_one(tmp_path: Path) -> None:
    files = [steady(tmp_path / f"{number}.mp4", 10, 20 + 2 * number) for number in range(4)]
    files.append(Path(shutil.copy(files[0], tmp_path / "copy.mp4")))
    table = IndexTable.of(span for file in files for span in SpanOptions(segment=2).cut(index_video(file), None))
    held_files = set()
    for seed in range(20):
        train, held = hold_out_rows(table, 6, seed, table.sources)
        assert len(held) == 6
        assert not set(table.contents[train].tolist()) & set(table.contents[held].tolist())
        held_files |= set(table.sources[held].tolist())
    assert len(held_files) >= 2
    with pytest.raises(ValueError, match="belong together"):
        hold_out_rows(table, 6, 0, np.zeros(len(table), np.int64))


def test_stretches_of_one_recording_are_its_groups(recording: VideoIndex) -> None:
    folder = Path(recording.path).parent
    found = scan(list_videos(folder, spans=SpanOptions(segment=0.2)), min_frames=1, cache=None)
    groups = GroupOptions().groups_of(found)
    assert np.diff(groups).min() >= 0
    assert len(groups) == 62
    assert set(np.bincount(groups).tolist()) <= {2, 3, 4}
    assert groups.max() == 19
    assert stretches(np.array([0.0, 100.0, 52.0, 49.0])).tolist() == [0, 3, 2, 1]
    assert stretches(np.array([5.0, 5.0])).tolist() == [0, 0]


def test_of_one_file_another_stretch_is_held_out_with_a_gap(tmp_path: Path) -> None:
    video = index_video(steady(tmp_path / "a.mp4", 5, 120))
    table = table_of(video, segment=4, segment_stride=2)
    assert table.spans is not None
    for seed in range(5):
        train, held = hold_out_rows(table, 6, seed, table.sources)
        start, end = table.spans.starts[held].min(), table.spans.ends[held].max()
        assert len(held) == 6
        assert end - start == pytest.approx(14)
        before, after = table.spans.ends[train] <= start - GAP_SECONDS, table.spans.starts[train] >= end + GAP_SECONDS
        assert (before | after).all()
    with pytest.raises(ValueError, match="none is 60 s away"):
        hold_out_rows(long := table_of(video, segment=60), 1, 0, long.sources)


def test_check_advises_a_common_rate() -> None:
    rates = (30.0, 60.0, 15.0)
    reports = [FileReport(f"{number}.mp4", "usable", "", frames=90, fps=fps) for number, fps in enumerate(rates)]
    advice = rate_advice(reports, 69, None)
    assert advice is not None
    assert "from 15 to 60" in advice
    assert "--fps 15" in advice
    assert "(69 frames) then needs 4.6 s" in advice
    assert "label (" not in str(rate_advice(reports, 1, None))
    assert rate_advice(reports, 69, 10.0) is None
    assert rate_advice(reports[:1], 69, None) is None
    single = FileReport("one.gif", "too short", "", frames=1, fps=1000.0)
    assert rate_advice([*reports, single], 69, None) == advice, "a single frame has no rate"
    assert rate_advice([reports[0], single], 69, None) is None


def test_training_on_spans_tells_the_contrast_where_they_lie(recording: VideoIndex) -> None:
    table = table_of(recording, segment=4, segment_stride=2)
    clips = PretextClips(table, TASKS["ts"], Sampling(clip_frames=4, clip_size=16), seed=0, together=2)
    _, targets = clips[0, 1]
    assert targets.tolist()[2:] == [1, 0, 2000, 6000]
    alone = PretextClips(table, TASKS["ts"], Sampling(clip_frames=4, clip_size=16), seed=0)
    assert len(alone[0, 1][1]) == 2


@pytest.fixture
def jumping(tmp_path: Path) -> VideoIndex:
    """Two seconds, a pause of 58, and two more seconds."""
    times = [*(number / 25 for number in range(50)), *(60 + number / 25 for number in range(50))]
    return index_video(write(tmp_path / "jump.mkv", times))


def test_a_moment_before_or_after_a_pause_is_cut_out_at_its_own_speed(jumping: VideoIndex, tmp_path: Path) -> None:
    """The mean rate of the file is far from that of its frames."""
    assert usual_rate(jumping) == pytest.approx(25)
    entry = Entry(jumping.path, None, 50, 2.0, start_seconds=60.0)
    moment = Moment(0, 1.0, 1.0, Place(entry, jumping.path, 0, 50, 60.0, 62.0))
    files, failed = write_cutouts(tmp_path / "clips", [moment], lambda place: video_of(place, jumping, None))
    assert not failed
    cutout = index_video(files[1])
    assert cutout.num_frames == 50
    assert cutout.duration_seconds == pytest.approx(2, abs=0.05)


def test_a_query_in_a_pause_is_refused(jumping: VideoIndex) -> None:
    for rate in (None, 5.0):
        with pytest.raises(ValueError, match=r"no frame is shown from 0:00:05\.0 to 0:00:09\.0: its time stamps jump"):
            asked_span(jumping, "a.mkv", 5, 9, rate)
        assert asked_span(jumping, "a.mkv", 60, 61, rate).num_frames == (5 if rate else 25)


def test_gaps_between_segments_are_said_and_no_rest_is(recording: VideoIndex) -> None:
    folder = Path(recording.path).parent
    result = scan_list(folder, "path\na.mp4\n", segment=2, segment_stride=5)
    assert result.videos.notes == ("3 s between segments are used in none",)


def test_every_span_that_cannot_be_used_is_named(recording: VideoIndex) -> None:
    result = scan_list(Path(recording.path).parent, "path,start,end\na.mp4,1,2\na.mp4,11,15\na.mp4,13,14\n")
    assert list(result.skipped) == ["a.mp4 0:00:11.0-0:00:15.0", "a.mp4 0:00:13.0-0:00:14.0"]


def test_spans_as_a_spreadsheet_saves_them(recording: VideoIndex) -> None:
    """Its "Unicode text" is UTF-16, with tabs."""
    file = Path(recording.path).parent / "list.txt"
    file.write_text('Path\tStart\tEnd\tLabel\na.mp4\t1\t2\t"x, y"\na.mp4\t\t0:01\t\n', encoding="utf-16")
    videos = list_videos(file)
    assert (videos.labels, videos.bounds) == (("x, y", None), ((1.0, 2.0), (0.0, 1.0)))


@pytest.mark.parametrize("header", ["path;start;end;label", "path|start|end", "label,end,start,path"])
def test_another_header_of_spans_is_refused_with_the_right_one(recording: VideoIndex, header: str) -> None:
    (Path(recording.path).parent / "list.csv").write_text(f"{header}\na.mp4;1;2;x\n")
    with pytest.raises(ValueError, match="the first line must be path,start,end or path,start,end,label, with commas"):
        list_videos(Path(recording.path).parent / "list.csv")
