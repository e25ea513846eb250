"""Near-duplicates: a planted copy of a stretch is found with its start and end in both files, and nothing else."""

import numpy as np
import pytest

from v3s.explore.duplicates import Duplicate, duplicates_among, least_similarity_of
from v3s.explore.matrix import centred
from v3s.explore.spans import SpanTable

STEP, LENGTH = 1.0, 2.0  # seconds between the starts of spans, and of each


def recordings(lengths: tuple[int, ...], starts: tuple[float, ...] = ()) -> tuple[np.ndarray, SpanTable]:
    """Vectors of overlapping spans of recordings: each is similar to those before and after it."""
    generator = np.random.default_rng(0)
    rows = []
    for length in lengths:
        noise = generator.standard_normal((length + 1, 24))
        rows.append(noise[1:] + noise[:-1])
    first = starts or (0.0,) * len(lengths)
    times = np.concatenate([begin + np.arange(length) * STEP for begin, length in zip(first, lengths, strict=True)])
    files = tuple(f"/videos/{number}.mp4" for number in range(len(lengths)))
    file_of = np.repeat(np.arange(len(lengths)), lengths)
    return unit(np.concatenate(rows)), SpanTable(files, file_of, times, times + LENGTH, False)


def among(vectors: np.ndarray, table: SpanTable, **options: float) -> tuple[Duplicate, ...]:
    return duplicates_among(centred(vectors), table, **options)  # type: ignore[arg-type]


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def places(found: Duplicate) -> tuple[str, float, float, str, float, float, int]:
    first, second = found.first, found.second
    return (
        *(first.file[-5:], first.start_seconds, first.end_seconds),
        *(second.file[-5:], second.start_seconds, second.end_seconds),
        found.num_pairs,
    )


def copy(vectors: np.ndarray, source: int, target: int, count: int, noise: float = 0.05) -> None:
    """Copy consecutive rows, with so much change as another encoding makes."""
    change = noise * unit(np.random.default_rng(9).standard_normal((count, vectors.shape[1])))
    vectors[target : target + count] = unit(vectors[source : source + count] + change)


def test_nothing_is_found_where_nothing_was_copied() -> None:
    assert among(*recordings((60, 50, 40))) == ()


def test_a_copied_stretch_is_found_with_its_times_and_no_other() -> None:
    vectors, table = recordings((60, 50, 40))
    copy(vectors, 10, 60 + 25, 12)
    (found,) = among(vectors, table)
    assert places(found) == ("0.mp4", 10, 23, "1.mp4", 25, 38, 12)
    assert found.first.rows == tuple(range(10, 22))
    assert found.second.rows == tuple(range(85, 97))
    assert 0.99 < found.similarity < 1


def test_a_stretch_that_was_copied_backwards_in_the_list_of_files() -> None:
    vectors, table = recordings((60, 50, 40))
    copy(vectors, 110 + 3, 40, 9)
    (found,) = among(vectors, table)
    assert places(found) == ("0.mp4", 40, 50, "2.mp4", 3, 13, 9)


def test_two_stretches_of_two_files_are_two_duplicates_the_longer_first() -> None:
    vectors, table = recordings((60, 50))
    copy(vectors, 5, 60 + 30, 4)
    copy(vectors, 40, 60 + 2, 8)
    assert [places(each) for each in among(vectors, table)] == [
        ("0.mp4", 40, 49, "1.mp4", 2, 11, 8),
        ("0.mp4", 5, 10, "1.mp4", 30, 35, 4),
    ]


def test_one_span_in_between_may_be_missed() -> None:
    vectors, table = recordings((60, 50))
    copy(vectors, 10, 60 + 25, 9)
    vectors[60 + 29] = unit(np.random.default_rng(5).standard_normal((1, 24)))
    (found,) = among(vectors, table)
    assert places(found) == ("0.mp4", 10, 20, "1.mp4", 25, 35, 8)


def test_offsets_need_not_be_whole_steps() -> None:
    """Spans of the second file begin 0.4 s later: the same moments have offsets that are no multiple of the step."""
    vectors, table = recordings((60, 50), starts=(0.0, 0.4))
    copy(vectors, 10, 60 + 25, 12)
    (found,) = among(vectors, table)
    assert places(found) == ("0.mp4", 10, 23, "1.mp4", 25.4, 38.4, 12)


def test_copies_of_whole_files() -> None:
    generator = np.random.default_rng(0)
    vectors = unit(generator.standard_normal((30, 12)))
    vectors[[7, 21]] = vectors[3]
    zeros, ends = np.zeros(30), np.full(30, 5.0)
    table = SpanTable(tuple(map(str, range(30))), np.arange(30), zeros, ends, True)
    found = among(vectors, table)
    assert [(each.first.file, each.second.file, each.num_pairs) for each in found] == [
        ("3", "7", 1), ("3", "21", 1), ("7", "21", 1),
    ]  # fmt: skip
    assert all(each.similarity == each.best == pytest.approx(1) for each in found)
    assert found[0].similarity_text == "similarity 1.000"


def test_a_still_scene_in_two_files_is_one_duplicate() -> None:
    """Every span of one matches every span of the other, at any offset; the longest run counts."""
    vectors, table = recordings((30, 30))
    vectors[:12] = vectors[0]
    vectors[30:42] = vectors[0]
    found = among(vectors, table)
    assert max(each.num_pairs for each in found) == 12
    assert len(found) <= 2


def test_identical_vectors_only() -> None:
    vectors = np.ones((4, 3), np.float32)
    starts = np.array([0.0, 1, 0, 1])
    table = SpanTable(("a", "b"), np.array([0, 0, 1, 1]), starts, starts + 2, False)
    (found,) = among(vectors, table)
    assert (found.num_pairs, found.similarity) == (2, 1)
    one = SpanTable(("a",), np.zeros(1, np.int64), np.zeros(1), np.ones(1), True)
    assert among(vectors[:1], one) == ()


@pytest.mark.parametrize("least", [0.0, 1.0, float("nan")])
def test_a_similarity_that_all_or_none_have_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match="the least similarity of near-duplicates is"):
        among(*recordings((3, 3)), least=least)


def test_pairs_of_a_run_may_be_less_similar_than_a_pair_alone() -> None:
    """Of a stretch that was encoded badly only some spans are similar enough; their run has the others too."""
    vectors, table = recordings((60, 50))
    copy(vectors, 10, 60 + 25, 12, noise=0.45)
    copy(vectors, 15, 60 + 30, 1, noise=0.01)
    copy(vectors, 40, 60 + 2, 6, noise=0.45)  # none of these is
    (found,) = among(vectors, table)
    assert places(found) == ("0.mp4", 10, 23, "1.mp4", 25, 38, 12)
    assert 0.8 < found.similarity < 0.95 < found.best
    assert found.similarity_text == f"similarity {found.best:.3f} (best pair; mean {found.similarity:.3f})"


def test_offsets_may_vary_by_less_than_a_step() -> None:
    """Times of frames are not even: the same moments are 14.3 s apart here and 14.5 s there."""
    vectors, table = recordings((60, 50))
    copy(vectors, 10, 60 + 25, 12)
    table.starts[60:] += np.where(np.arange(50) % 2, -0.5, -0.7)  # steps are 0.8 s and 1.2 s
    (found,) = among(vectors, table)
    assert (found.num_pairs, found.first.start_seconds, found.first.end_seconds) == (12, 10, 23)


@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_the_least_similarity_is_read_from_unrelated_pairs(spread: float) -> None:
    """Five scenes, each shown by many files: what shows one scene is similar, and no copy; a planted copy is found."""
    generator = np.random.default_rng(0)
    scenes = generator.standard_normal((5, 24))[np.arange(60) % 5]
    vectors = unit(scenes + spread * generator.standard_normal((60, 24)))
    table = SpanTable(tuple(map(str, range(60))), np.arange(60), np.zeros(60), np.full(60, 5.0), True)
    least = least_similarity_of(centred(vectors), table)
    assert (least > 0.95) == (spread < 1)
    assert (len(among(vectors, table, least=0.95)) > 100) == (spread < 1)
    assert among(vectors, table) == ()
    vectors[41] = unit(vectors[None, 7] + 1e-3 * unit(generator.standard_normal((1, 24))))
    (found,) = among(vectors, table)
    assert (found.first.file, found.second.file) == ("7", "41")
