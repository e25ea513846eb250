"""Moments: greedy suppression as written down, planted moments all found, and standard scores."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.data.views import View
from v3s.features.encoder import Feature, Space
from v3s.vectors.collection import Vectors, open_vectors, save_shard
from v3s.vectors.description import Description
from v3s.vectors.entries import Entry, Place, Shard, video_lines
from v3s.vectors.folder import begin_folder
from v3s.vectors.moments import OVERLAP, find_moments, overlaps
from v3s.vectors.nearest.approximate import ApproximateIndex
from v3s.vectors.nearest.exact import best_scores, standardise

LENGTH, DIMENSION = 20, 32


def make_recordings(folder: Path, vectors: Tensor, num_files: int, step: int) -> Vectors:
    """A folder of vectors, as many for each file, of spans of `LENGTH` frames that start every ``step`` frames."""
    per_file = len(vectors) // num_files
    num_frames = (per_file - 1) * step + LENGTH
    lines = video_lines(Entry(f"{number}.mp4", None, num_frames, num_frames / 10) for number in range(num_files))
    description = Description(
        backbone="random:r3d", seed=0, network="r3d@1", stages={"conv5": DIMENSION},
        space=Space("0" * 64, View(stride=step), Feature()), per_clip=True, dimension=DIMENSION, dtype="float16",
        root="/", source="made", files_sha256=hashlib.sha256(lines).hexdigest(), num_videos=num_files,
        num_vectors=len(vectors), num_padded=0, num_missing=0, left_out={}, shard_videos=3,
    )  # fmt: skip
    begin_folder(folder, description, lines, overwrite=False)
    for number in range(description.num_shards):
        files = torch.arange(3 * number, min(3 * number + 3, num_files), dtype=torch.int32)
        starts = (torch.arange(per_file, dtype=torch.int32) * step).repeat(len(files))
        rows = vectors[3 * number * per_file :][: len(starts)].half()
        save_shard(folder, number, Shard(rows, files.repeat_interleave(per_file), starts, starts + LENGTH), description)
    return open_vectors(folder)


def random_units(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, DIMENSION, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(("step", "k"), [(3, 5), (3, 40), (10, 12), (16, 7), (20, 9), (3, 10_000)])
def test_suppression_is_the_greedy_one(tmp_path: Path, step: int, k: int) -> None:
    vectors = make_recordings(tmp_path / "vectors", random_units(400, 1), 4, step)
    queries = random_units(3, 2)
    scores = (vectors.take(torch.arange(400)) @ queries.T).amax(dim=1)
    expected: list[int] = []
    for row in scores.sort(descending=True, stable=True).indices.tolist():
        if not any(
            row // 100 == other // 100 and LENGTH - abs(row - other) * step > OVERLAP * LENGTH for other in expected
        ):
            expected.append(row)
    found = find_moments(vectors, queries, k)
    assert [moment.row for moment in found] == expected[:k]
    assert [moment.score for moment in found] == pytest.approx(scores[expected[:k]].tolist(), abs=1e-6)
    for one in found[:50]:
        assert not any(
            one is not other and one.place.file == other.place.file and overlaps(one.place, other.place)
            for other in found[:50]
        )


def test_a_file_is_left_out_and_as_many_are_found(tmp_path: Path) -> None:
    vectors = make_recordings(tmp_path / "vectors", random_units(400, 1), 4, 10)
    query, file = random_units(1, 2), vectors.place_of(0).file
    every = [moment.row for moment in find_moments(vectors, query, 400) if moment.place.file != file]
    assert len(every) > 60
    assert [moment.row for moment in find_moments(vectors, query, 60, without=file)] == every[:60]


def test_twenty_planted_moments_of_one_file_are_the_first_twenty_hits(tmp_path: Path) -> None:
    rows, (moment,) = random_units(2000, 3), random_units(1, 4)
    planted = range(31, 931, 45)
    for row in planted:
        for near, share in ((-1, 0.5), (0, 1.0), (1, 0.5)):  # spans beside it show half of it
            rows[row + near] = F.normalize(share * moment + (1.3 - share) * rows[row + near], dim=0)
    vectors = make_recordings(tmp_path / "vectors", rows, 2, LENGTH // 2)
    found = find_moments(vectors, moment[None], 20)
    assert sorted(moment.row for moment in found) == list(planted)
    assert len(find_moments(vectors, moment[None], 21)) == 21
    assert min(moment.z for moment in found) > find_moments(vectors, moment[None], 21)[-1].z + 1


@pytest.mark.parametrize(("count", "k"), [(400, 1), (400, 5), (400, 100), (37, 5)])
def test_of_equal_rows_the_lower_win(tmp_path: Path, count: int, k: int) -> None:
    """Also if more are equal than are scored again, as of a still picture, and if their number is not a round one."""
    row = random_units(1, 1)
    vectors = make_recordings(tmp_path / "vectors", row.repeat(count, 1), 1, LENGTH)
    assert [moment.row for moment in find_moments(vectors, row, k)] == list(range(k))
    assert vectors.nearest(row, k).indices.tolist() == [list(range(k))]


def test_rows_of_other_lengths_are_equal(tmp_path: Path) -> None:
    row = random_units(1, 1)
    lengths = torch.tensor([0.5, 1.0]).repeat(20)[:, None]
    vectors = make_recordings(tmp_path / "vectors", row * lengths, 1, LENGTH)
    assert [moment.row for moment in find_moments(vectors, row, 7)] == list(range(7))


@pytest.mark.parametrize(
    ("start", "end", "same"), [(0, 20, True), (14, 34, True), (15, 35, False), (20, 40, False), (30, 38, False),
                               (13, 15, True), (18, 26, False), (17, 25, True), (0, 500, True), (16, 500, False)],
)  # fmt: skip
def test_spans_are_the_same_moment_by_their_share_of_the_shorter_one(start: int, end: int, same: bool) -> None:
    """Of a span of 20 frames and another of the same file: more than a quarter of the shorter."""
    one, other = (
        Place(Entry("a", None, 500, 20.0), "a", *span, span[0] / 25, span[1] / 25) for span in ((0, 20), (start, end))
    )
    assert overlaps(one, other) == overlaps(other, one) == same


def test_candidates_of_several_queries_are_taken_only_as_far_as_all_of_them_reach(tmp_path: Path) -> None:
    """The rows proposed for the first query are few moments; its next ones are better than any of the second's."""
    first, second = random_units(2, 1)
    rows = random_units(600, 2)
    rows[:400] = F.normalize(first + torch.linspace(0.01, 0.5, 400)[:, None] * rows[:400], dim=1)
    vectors, queries = make_recordings(tmp_path / "vectors", rows, 3, 1), torch.stack([first, second])
    as_proposed = cast("ApproximateIndex", SimpleNamespace(nearest=vectors.nearest))  # without a loss
    found, exact = find_moments(vectors, queries, 12, as_proposed), find_moments(vectors, queries, 12)
    assert [moment.row for moment in found] == [moment.row for moment in exact]


def test_best_scores_are_those_of_all_pairs() -> None:
    rows, queries = random_units(3001, 6), random_units(1030, 7)  # more than one block of queries
    expected = (queries @ rows.T).amax(dim=0)
    torch.testing.assert_close(best_scores(queries, [rows[:2999], rows[2999:]]), expected)
    with pytest.raises(ValueError, match="NaN or infinity"):
        best_scores(queries * float("nan"), [rows])


def test_standard_scores_tell_crowded_cosines_apart_and_keep_their_order() -> None:
    cosines = torch.tensor([0.999, 0.998, *[0.9975] * 4, *[0.9965] * 4])
    standard = standardise(cosines, cosines)
    assert standard.mean() == pytest.approx(0, abs=1e-4)
    assert standard.std(unbiased=False) == pytest.approx(1, abs=1e-4)
    assert standard[0] - standard[1] > 1
    wide = standardise(1 - 100 * (1 - cosines), 1 - 100 * (1 - cosines))
    torch.testing.assert_close(standard, wide, atol=1e-3, rtol=0)  # it does not depend on how crowded they are
    assert standardise(torch.ones(3), torch.ones(3)).tolist() == [0, 0, 0]


def test_an_index_finds_the_same_and_estimates_standard_scores(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="needs the extra [ann]")
    rows = random_units(2000, 8)
    rows[500:] = F.normalize(rows[500:] + random_units(1, 10), dim=1)  # the first recording is unlike the others
    vectors = make_recordings(tmp_path / "vectors", rows, 4, 5)
    flat = faiss.IndexHNSWFlat(DIMENSION, 32)
    flat.add(vectors.take(torch.arange(2000)).numpy())
    queries = random_units(2, 9)
    exact = find_moments(vectors, queries, 15)
    found = find_moments(vectors, queries, 15, ApproximateIndex(vectors, flat))
    assert len({moment.row for moment in exact} & {moment.row for moment in found}) >= 14
    assert [moment.z for moment in found] == pytest.approx([moment.z for moment in exact], abs=0.1)
