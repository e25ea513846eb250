"""Moments: greedy suppression as written down, planted moments all found, and standard scores."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.data.views import View
from v3s.features.encoder import Feature, Space
from v3s.vectors.approximate import ApproximateIndex
from v3s.vectors.collection import Description, Shard, Vectors, open_vectors, save_shard
from v3s.vectors.entries import Entry, video_lines
from v3s.vectors.exact import best_scores, standardise
from v3s.vectors.folder import begin_folder
from v3s.vectors.moments import OVERLAP, find_moments, overlaps

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


def test_a_span_of_another_length_overlaps_by_its_own_share(tmp_path: Path) -> None:
    vectors = make_recordings(tmp_path / "vectors", random_units(10, 5), 1, 15)
    first, second, third = (vectors.place_of(row) for row in (0, 1, 2))
    assert not overlaps(first, second)  # 5 of 20 frames, which is not more than a quarter
    assert not overlaps(first, third)
    assert overlaps(first, first)


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
    vectors = make_recordings(tmp_path / "vectors", random_units(2000, 8), 4, 5)
    flat = faiss.IndexHNSWFlat(DIMENSION, 32)
    flat.add(vectors.take(torch.arange(2000)).numpy())
    queries = random_units(2, 9)
    exact = find_moments(vectors, queries, 15)
    found = find_moments(vectors, queries, 15, ApproximateIndex(vectors, flat))
    assert len({moment.row for moment in exact} & {moment.row for moment in found}) >= 14
    assert [moment.z for moment in found] == pytest.approx([moment.z for moment in exact], abs=0.1)
