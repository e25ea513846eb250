"""The table of indices returns what was put in: whole, as a subset, and after pickling."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from v3s.data.index_table import IndexTable
from v3s.video.decode import VideoIndex

INDEX = VideoIndex(
    num_corrupt=0,
    path="a/é #1.mp4",
    num_bytes=1234,
    num_frames=29,
    height=240,
    width=320,
    rotation=0,
    fps=25.0,
    duration_seconds=1.16,
    known_format="mov",
    codec="h264",
    pixel_format="yuv420p",
    timestamps=range(0, 29 * 512, 512),
    packets_match=True,
    key_frames=(12,),
    fingerprint=2**64 - 1,
)
INDICES = [replace(INDEX, path=f"{place}.mp4", num_frames=29 + place, fingerprint=2**63 + place) for place in range(5)]


def test_table_returns_what_was_put_in() -> None:
    table = IndexTable.of([INDEX, *INDICES])
    assert len(table) == 6
    assert table[0] == INDEX
    assert [table[number].path for number in range(1, 6)] == [index.path for index in INDICES]
    assert table.num_frames.tolist() == [29, 29, 30, 31, 32, 33]
    assert [array.dtype.name for array in (table.text, table.offsets, table.num_frames)] == ["uint8", "int64", "int32"]


@pytest.mark.parametrize("number", [-1, 5])
def test_number_outside_the_table(number: int) -> None:
    with pytest.raises(IndexError, match=f"^{number} is out of range: the table contains 5 videos, numbered from 0"):
        IndexTable.of(INDICES)[number]


def test_table_is_a_sequence() -> None:
    assert [index.path for index in IndexTable.of(INDICES)] == [index.path for index in INDICES]


@pytest.mark.parametrize("numbers", [[3, 0, 3], [], [4, 3, 2, 1, 0]])
def test_subset_keeps_the_given_order(numbers: list[int]) -> None:
    subset = IndexTable.of(INDICES).subset(numbers)
    assert [index.path for index in subset] == [INDICES[number].path for number in numbers]
    assert subset.num_frames.tolist() == [INDICES[number].num_frames for number in numbers]
    assert subset.num_frames.dtype == np.int32
    assert subset.fingerprints.tolist() == [INDICES[number].fingerprint for number in numbers]


def test_empty_table() -> None:
    table = IndexTable.of([])
    assert len(table) == len(table.subset([])) == 0


def test_pickle_keeps_the_table_and_adds_next_to_nothing() -> None:
    table = IndexTable.of(INDICES * 200)
    data = pickle.dumps(table, protocol=pickle.HIGHEST_PROTOCOL)
    arrays = table.text.nbytes + table.offsets.nbytes + table.num_frames.nbytes + table.fingerprints.nbytes
    assert len(data) < arrays + 2000
    assert pickle.loads(data)[999] == table[999]


def test_path_that_is_not_utf8(tmp_path: Path) -> None:
    index = replace(INDEX, path=f"{tmp_path}/b\udce4r.mp4")  # a file name of bytes that are not UTF-8
    assert IndexTable.of([index])[0] == index
