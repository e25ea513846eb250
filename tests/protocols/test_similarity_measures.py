"""Action similarity: each formula by hand and by loops, the folds, and pair files."""

import itertools
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC
from torch import Tensor

from v3s.protocols.pairs import VideoPair, disjoint_class_pairs, read_pairs_csv
from v3s.protocols.similarity_measures import (
    BoolArray,
    choose_c,
    evaluate_folds,
    pair_features,
    similarities,
)
from v3s.video.homography import FloatArray

ROWS = [f"{number}" for number in range(1, 13)]


def naive(x: list[float], y: list[float]) -> list[float]:
    """The twelve formulas, one number at a time."""
    unit_x = [value / math.sqrt(sum(v * v for v in x)) for value in x]
    unit_y = [value / math.sqrt(sum(v * v for v in y)) for value in y]
    pairs, units = list(zip(x, y, strict=True)), list(zip(unit_x, unit_y, strict=True))
    safe = [(a, b) for a, b in pairs if a + b > 0]
    return [
        sum(a * b for a, b in pairs),
        math.sqrt(sum(a * b for a, b in pairs)),
        math.sqrt(sum(math.sqrt(a) * math.sqrt(b) for a, b in pairs)),
        math.sqrt(sum(a * b / (a + b) for a, b in safe)),
        sum(a * b for a, b in units),
        math.sqrt(sum((a - b) ** 2 / (a + b) for a, b in safe)),
        sum(abs(a - b) for a, b in pairs),
        math.sqrt(sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in pairs)),
        math.sqrt(sum((a - b) ** 2 for a, b in units)),
        sum(a * math.log((a + 1e-10) / (b + 1e-10)) + b * math.log((b + 1e-10) / (a + 1e-10)) for a, b in units) / 2,
        sum(math.sqrt(max(a, b)) / math.sqrt(a + b) for a, b in units if a + b > 0),
        sum(min(a, b) for a, b in units) / (sum(unit_x) * sum(unit_y)),
    ]


def sparse_features(num_pairs: int, seed: int) -> Tensor:
    """Features after a ReLU: about a third are exactly 0."""
    return (torch.randn(num_pairs, 12, generator=torch.Generator().manual_seed(seed)) + 0.4).relu()


def test_each_value_by_hand() -> None:
    values = similarities(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))[0]
    expected = [
        24,
        math.sqrt(24),
        math.sqrt(2 * math.sqrt(12)),
        math.sqrt(24 / 7),
        24 / 25,
        math.sqrt(2 / 7),
        2,
        math.sqrt(2) * (2 - math.sqrt(3)),
        math.sqrt(0.08),
        0.2 * math.log(4 / 3),
        2 * math.sqrt(4 / 7),
        1.2 / 1.96,
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.parametrize("column", range(12), ids=ROWS)
def test_each_column_agrees_with_loops(column: int) -> None:
    a, b = sparse_features(20, 0), sparse_features(20, 1)
    expected = [naive(x, y)[column] for x, y in zip(a.double().tolist(), b.double().tolist(), strict=True)]
    np.testing.assert_allclose(similarities(a, b)[:, column], expected, rtol=1e-9)


def test_a_video_and_itself() -> None:
    x = sparse_features(6, 0)
    values, length = similarities(x, x), x.double().norm(dim=1)
    np.testing.assert_allclose(values[:, 0], length**2)
    np.testing.assert_allclose(values[:, 4], 1)
    for distance in (5, 6, 7, 8, 9):  # numbers 6 to 10
        assert values[:, distance].abs().max() == 0
    np.testing.assert_allclose(values[:, 10], (x > 0).sum(dim=1) / math.sqrt(2))


def test_a_video_is_closer_to_itself_than_to_another() -> None:
    x, y = sparse_features(30, 0), sparse_features(30, 1)
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    own, other = similarities(x, x), similarities(x, y)
    for similarity in (0, 1, 4):
        assert (own[:, similarity] > other[:, similarity]).all()
    for distance in (5, 6, 7, 8, 9):
        assert (own[:, distance] < other[:, distance]).all()


def test_all_are_symmetric() -> None:
    a, b = sparse_features(10, 0), sparse_features(10, 1)
    torch.testing.assert_close(similarities(a, b), similarities(b, a))


def test_scale_of_each_number() -> None:
    """Doubling both features multiplies each number by a power of two; 5 and 9 to 12 depend on directions only."""
    a, b = sparse_features(10, 0), sparse_features(10, 1)
    powers = torch.tensor([2, 1, 0.5, 0.5, 0, 0.5, 1, 0.5, 0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(similarities(2 * a, 2 * b), similarities(a, b) * 2**powers)
    invariant = [4, 8, 9, 10, 11]
    torch.testing.assert_close(similarities(7 * a, b)[:, invariant], similarities(a, b)[:, invariant])


def test_features_of_zeros_give_finite_numbers() -> None:
    zero, one = torch.zeros(1, 5), torch.ones(1, 5)
    for a, b in itertools.product((zero, one), repeat=2):
        assert similarities(a, b).isfinite().all()
    assert similarities(zero, zero).abs().max() == 0


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_refuses_features_that_are_not_activations(bad: float) -> None:
    with pytest.raises(ValueError, match="negative, infinite or NaN"):
        similarities(torch.ones(2, 3), torch.tensor([[1, 1, bad], [1, 1, 1]]))


def test_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"features \(2, 3\) and \(2, 4\)"):
        similarities(torch.ones(2, 3), torch.ones(2, 4))


def test_pair_features_are_twelve_per_stage_in_order() -> None:
    a, b = (
        [sparse_features(7, seed)[:, : 4 + seed] for seed in range(3)],
        [sparse_features(7, 9)[:, :n] for n in (4, 5, 6)],
    )
    features = pair_features(a, b)
    assert features.shape == (7, 36)
    assert features.dtype == torch.float64
    assert torch.equal(features[:, 12:24], similarities(a[1], b[1]))
    with pytest.raises(ValueError, match="got 3 and 2 stages; expected the same number"):
        pair_features(a, b[:2])


def separable_pairs(num_pairs: int, noise: float, seed: int = 0) -> tuple[FloatArray, BoolArray, np.ndarray]:
    """Pairs of 36 numbers of very different scales, whose sum reveals the kind; ten folds, half of each "same"."""
    generator = np.random.default_rng(seed)
    same = np.arange(num_pairs) % 2 == 0
    numbers = same[:, None] + noise * generator.standard_normal((num_pairs, 36))
    return numbers * np.logspace(-3, 3, 36), same, np.arange(num_pairs) // 2 % 10


def test_folds_distinguish_same_from_different() -> None:
    result = evaluate_folds(*separable_pairs(600, noise=1.0), c=0.1)
    assert len(result.fold_accuracy) == 10
    assert result.mean > 0.95
    assert result.auc > 0.98
    assert result.mean == pytest.approx(np.mean(result.fold_accuracy))
    assert result.standard_error == pytest.approx(np.std(result.fold_accuracy, ddof=1) / math.sqrt(10))


def test_shuffled_labels_give_chance() -> None:
    features, same, fold = separable_pairs(1000, noise=1.0)
    result = evaluate_folds(features, np.random.default_rng(1).permutation(same), fold, c=0.1)
    assert 0.42 < result.mean < 0.58
    assert 0.42 < result.auc < 0.58


def test_area_and_points_of_the_curve_agree_with_scikit_learn() -> None:
    """With one informative number, the decision values have the same order as this number."""
    generator = np.random.default_rng(0)
    same = np.arange(400) % 2 == 0
    number = same + 1.5 * generator.standard_normal(400)
    result = evaluate_folds(number[:, None], same, np.arange(400) // 2 % 2, c=1.0)
    assert result.auc == pytest.approx(roc_auc_score(same, number), abs=0.02)  # two SVMs with two offsets
    assert (result.false_positive_rate[0], result.true_positive_rate[0]) == (0, 0)
    assert (result.false_positive_rate[-1], result.true_positive_rate[-1]) == (1, 1)
    assert list(result.false_positive_rate) == sorted(result.false_positive_rate)


def test_standardising_uses_the_training_folds_only() -> None:
    """Compared with numpy, with a fold on another scale that would change the deviation of all folds."""
    features, same, fold = separable_pairs(400, noise=4.0)
    features[fold == 3] *= 20
    own: list[float] = []
    common: list[float] = []
    for held_out in range(10):
        test = fold == held_out
        for accuracies, fitted in ((own, ~test), (common, test | True)):
            scaled = (features - features[fitted].mean(axis=0)) / features[fitted].std(axis=0)
            svm = LinearSVC(C=1e-3, dual=False).fit(scaled[~test], same[~test])
            accuracies.append(svm.score(scaled[test], same[test]))
    assert evaluate_folds(features, same, fold, c=1e-3).fold_accuracy == pytest.approx(own)
    assert own != pytest.approx(common)


def test_choose_c_takes_the_best_and_in_a_tie_the_strongest() -> None:
    features, same, _ = separable_pairs(300, noise=0.1)
    assert choose_c(features[:200], same[:200], features[200:], same[200:]) == 1e-4  # every C is always right
    noisy, same, _ = separable_pairs(60, noise=6.0)
    scaled = (noisy - noisy[:40].mean(axis=0)) / noisy[:40].std(axis=0)
    accuracy = {
        c: LinearSVC(C=c, dual=False, max_iter=10_000).fit(scaled[:40], same[:40]).score(scaled[40:], same[40:])
        for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    }
    assert len(set(accuracy.values())) > 1
    best = min(c for c, share in accuracy.items() if share == max(accuracy.values()))
    assert choose_c(noisy[:40], same[:40], noisy[40:], same[40:]) == best


def test_folds_need_two_folds_and_two_kinds() -> None:
    features, same, fold = separable_pairs(40, noise=1.0)
    with pytest.raises(ValueError, match="all 40 pairs are in fold 0; the pairs must be in two folds"):
        evaluate_folds(features, same, fold * 0, c=1.0)
    with pytest.raises(ValueError, match=r"\d+ training pairs, all of the same action; training needs pairs of both"):
        evaluate_folds(features, same | True, fold, c=1.0)


def test_a_missing_extra_gives_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ValueError, match=r"pip install 'v3s\[eval\]'"):
        evaluate_folds(*separable_pairs(40, noise=1.0), c=1.0)


def labelled_videos(num_classes: int, num_videos: int) -> tuple[list[str], list[str]]:
    labels = [f"class{row % num_classes}" for row in range(num_videos)]
    return [f"{label}/{row}.mp4" for row, label in enumerate(labels)], labels


def test_folds_have_disjoint_classes_and_are_half_same() -> None:
    paths, labels = labelled_videos(num_classes=33, num_videos=700)
    pairs = disjoint_class_pairs(paths, labels, generator=np.random.default_rng(0), num_folds=10, pairs_per_fold=60)
    assert Counter((pair.fold, pair.same) for pair in pairs) == dict.fromkeys(
        itertools.product(range(10), (True, False)), 30
    )
    assert len({frozenset((pair.a, pair.b)) for pair in pairs}) == len(pairs)
    label_of = dict(zip(paths, labels, strict=True))
    assert all((label_of[pair.a] == label_of[pair.b]) == pair.same and pair.a != pair.b for pair in pairs)
    folds_of: dict[str, set[int]] = {}
    for pair in pairs:
        for video in (pair.a, pair.b):
            folds_of.setdefault(label_of[video], set()).add(pair.fold)
    assert all(len(folds) == 1 for folds in folds_of.values())


def test_drawn_folds_depend_only_on_the_generator() -> None:
    paths, labels = labelled_videos(8, 80)

    def draw(seed: int) -> list[VideoPair]:
        generator = np.random.default_rng(seed)
        return disjoint_class_pairs(paths, labels, generator=generator, num_folds=2, pairs_per_fold=20)

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_all_pairs_of_a_fold_can_be_drawn() -> None:
    paths, labels = ["a", "b", "c", "d"], ["x", "x", "y", "y"]
    pairs = disjoint_class_pairs(paths, labels, generator=np.random.default_rng(0), num_folds=1, pairs_per_fold=4)
    assert {(pair.a, pair.b) for pair in pairs if pair.same} == {("a", "b"), ("c", "d")}
    message = (
        "fold 0: 2 classes with 4 videos make only 2 pairs of the same action, half of a fold needs 3; "
        "choose --pairs-per-fold 4 or fewer, or fewer --num-folds"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        disjoint_class_pairs(paths, labels, generator=np.random.default_rng(0), num_folds=1, pairs_per_fold=6)


def test_too_few_classes_for_the_folds_are_reported() -> None:
    for num_classes, num_folds, message in (
        (1, 2, "1 class for 2 folds: each fold needs two .*; give 4 classes or more, for two folds"),
        (3, 2, "3 classes for 2 folds: .*; give 4 classes or more, for two folds"),
        (7, 10, "7 classes for 10 folds: .*; choose --num-folds 3 or fewer"),
    ):
        paths, labels = labelled_videos(num_classes, 60)
        with pytest.raises(ValueError, match=f"^{message}$"):
            disjoint_class_pairs(
                paths, labels, generator=np.random.default_rng(0), num_folds=num_folds, pairs_per_fold=10
            )


def test_one_video_per_class_makes_no_pair_of_the_same_action() -> None:
    message = r"3 classes with 3 videos make only 0 pairs .*, half of a fold needs 1; choose fewer --num-folds$"
    with pytest.raises(ValueError, match=message):
        disjoint_class_pairs(
            list("abcdef"), list("abcdef"), generator=np.random.default_rng(0), num_folds=2, pairs_per_fold=2
        )


def test_pairs_are_read_from_csv(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text('a,b,same,fold\r\n"left, one.mp4",right.mp4,1,0\r\nx/y.avi,z.avi,0,12\r\n')
    assert read_pairs_csv(tmp_path / "pairs.csv") == [
        VideoPair("left, one.mp4", "right.mp4", True, 0),
        VideoPair("x/y.avi", "z.avi", False, 12),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left,right\n", r"pairs\.csv: the first line is 'left,right'; it must be 'a,b,same,fold'"),
        ("", r"pairs\.csv: the first line is ''"),
        ("a,b,same,fold\n", r"pairs\.csv: contains no pairs"),
        (
            "a,b,same,fold\nx,y,1,0\ny,x,0,1\n",
            r"pairs\.csv: y and x are listed both as the same \(1\) and as not \(0\); keep one",
        ),
        ("a,b,same,fold\nx,y,1,0\nx,y,yes,0\n", r"pairs\.csv, line 3: got 'x,y,yes,0'"),
        ("a,b,same,fold\nx,y,1\n", r"line 2: got 'x,y,1'; expected two names, 0 or 1, and an integer"),
        ("a,b,same,fold\nx,,1,0\n", r"line 2: got 'x,,1,0'"),
        ("a,b,same,fold\nx,y,1,-1\n", r"line 2: got 'x,y,1,-1'"),
    ],
)
def test_errors_in_a_csv_file_give_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs_csv(tmp_path / "pairs.csv")
