"""Label tables: their contents, their fixed order, and their way through a checkpoint."""

import json

import pytest

from v3s.files.reading import read_as
from v3s.options import closest
from v3s.pretext.spatial import SpatialProjection, SpatialScale
from v3s.pretext.task import TASKS, PretextTask, get_task, needs_of_shorter_clips
from v3s.pretext.temporal import TemporalProjection, TemporalScale

V3S_SPATIAL = """SpatialScale(a=1.0, b=1.15)
SpatialScale(a=1.0, b=1.3)
SpatialScale(a=1.0, b=1.45)
SpatialScale(a=1.15, b=1.0)
SpatialScale(a=1.3, b=1.0)
SpatialScale(a=1.45, b=1.0)
SpatialProjection(c=0.8, head='right')
SpatialProjection(c=0.8, head='left')
SpatialProjection(c=0.8, head='top')
SpatialProjection(c=0.8, head='bottom')
SpatialProjection(c=0.65, head='right')
SpatialProjection(c=0.65, head='left')
SpatialProjection(c=0.65, head='top')
SpatialProjection(c=0.65, head='bottom')
SpatialProjection(c=0.5, head='right')
SpatialProjection(c=0.5, head='left')
SpatialProjection(c=0.5, head='top')
SpatialProjection(c=0.5, head='bottom')"""
V3S_TEMPORAL = """TemporalScale(speed=1)
TemporalScale(speed=2)
TemporalScale(speed=3)
TemporalProjection(p=(1, 2))
TemporalProjection(p=(2, 3))
TemporalProjection(p=(3, 4))
TemporalProjection(p=(4, 5))
TemporalProjection(p=(2, 1))
TemporalProjection(p=(3, 2))
TemporalProjection(p=(4, 3))
TemporalProjection(p=(5, 4))"""


def test_rows_of_v3s_keep_their_order_and_text() -> None:
    """Checkpoints, logs and confusion matrices refer to labels by these numbers and texts."""
    assert "\n".join(map(repr, TASKS["v3s"].spatial)) == V3S_SPATIAL
    assert "\n".join(map(repr, TASKS["v3s"].temporal)) == V3S_TEMPORAL


def test_rows_are_named_in_plain_words() -> None:
    task = TASKS["v3s"]
    named = [str(row) for row in (task.spatial[2], task.spatial[-1], task.temporal[2], task.temporal[-1])]
    assert named == ["scale 1 x 1.45", "projection 0.5 bottom", "speed 3", "speed 5 then 4"]


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_a_table_differ(name: str) -> None:
    for table in (TASKS[name].spatial, TASKS[name].temporal):
        assert len(set(table)) == len(table) > 0


@pytest.mark.parametrize("name", TASKS)
def test_table_survives_json(name: str) -> None:
    task = TASKS[name]
    restored = read_as(PretextTask, json.loads(json.dumps(task.to_table())), "config.json")
    assert restored == task
    assert str(restored) == str(task)
    assert restored.temporal[0].steps(16) == task.temporal[0].steps(16)


def test_table_of_your_own_survives_json() -> None:
    task = PretextTask((SpatialScale(0.9, 1.2), SpatialProjection(0.4, "top")), (TemporalProjection((7, 1)),))
    assert read_as(PretextTask, json.loads(json.dumps(task.to_table())), "config.json") == task
    assert task.to_table()["spatial"][1] == {"kind": "SpatialProjection", "c": 0.4, "head": "top"}


def test_spans_of_a_task() -> None:
    task = PretextTask((SpatialScale(1, 1),), (TemporalScale(2), TemporalProjection((1, 4))))
    assert (task.shortest_span(10), task.longest_span(10)) == (2 * 9 + 1, 5 * 1 + 4 * 4 + 1)
    assert task.longest_span(10, "second") == 4 * 1 + 5 * 4 + 1
    assert (TASKS["v3s"].shortest_span(16), TASKS["v3s"].longest_span(16)) == (16, 69)


def test_short_videos_can_show_every_row_of_v3s_short() -> None:
    assert TASKS["v3s-short"].longest_span(8) == 22
    assert TASKS["v3s-short"].spatial == TASKS["v3s"].spatial
    assert set(TASKS["v3s-short"].temporal) < set(TASKS["v3s"].temporal)


def test_settings_for_shorter_videos_need_fewer_frames() -> None:
    assert needs_of_shorter_clips("v3s", 16) == {
        "--clip-frames 12": 51,
        "--task v3s-short": 46,
        "--task v3s-short --clip-frames 12": 34,
        "--clip-frames 8": 33,
        "--task v3s-short --clip-frames 8": 22,
    }
    assert needs_of_shorter_clips("v3s-short", 8) == {}


def test_unknown_name_proposes_the_closest_and_lists_all() -> None:
    with pytest.raises(ValueError, match=r"'v3z' \(did you mean 'v3s'\?\); available: ss, sp, ss\+sp, .*, tp-8$"):
        get_task("v3z")
    with pytest.raises(ValueError, match=r"no pretext task is called 'rotation'; available: ss, "):
        get_task("rotation")
    assert get_task("tp-6") is TASKS["tp-6"]


def test_closest_is_empty_if_nothing_is_close() -> None:
    assert closest("s3gd", ["c3d", "s3dg"]) == " (did you mean 's3dg'?)"
    assert closest("swin", ["c3d", "s3dg"]) == ""
