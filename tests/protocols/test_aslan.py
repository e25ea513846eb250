"""ASLAN's lists: both MATLAB formats, both views, and the samples' files."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from v3s.protocols.aslan import locate_samples, read_aslan_pairs
from v3s.protocols.pairs import VideoPair


def view2() -> np.ndarray[Any, Any]:
    """Ten splits of 600 pairs in the original layout: 600 x 5 x 10."""
    generator = np.random.default_rng(0)
    samples = generator.integers(1, 3698, (600, 2, 10))
    same = np.broadcast_to((np.arange(600) < 300)[:, None, None], (600, 1, 10))
    actions = generator.integers(1, 433, (600, 2, 10))
    return np.concatenate([samples, same, actions], axis=1).astype(np.float64)


def save_v73(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write MATLAB's format of version 7.3: HDF5 after a 512-byte header, axes reversed, with a #refs# group."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")
        for name, array in arrays.items():
            file[name] = array.T
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(header.ljust(512, b"\x00"))


@pytest.mark.parametrize("save", [scipy.io.savemat, save_v73], ids=["v5", "v7.3"])
def test_view2_has_ten_folds_in_both_formats(tmp_path: Path, save: Any) -> None:
    array = view2()
    save(tmp_path / "View2.mat", {"action_splits_pairs": array, "another": np.zeros((2, 2))})
    pairs = read_aslan_pairs(tmp_path / "View2.mat")
    assert len(pairs) == 6000
    for row, fold in ((0, 0), (17, 3), (599, 9)):
        a, b, same = array[row, :3, fold]
        assert pairs[600 * fold + row] == VideoPair(f"{a:04.0f}", f"{b:04.0f}", same == 1, fold)
    assert sum(pair.same for pair in pairs if pair.fold == 4) == 300


@pytest.mark.parametrize("save", [scipy.io.savemat, save_v73], ids=["v5", "v7.3"])
@pytest.mark.parametrize("dtype", [np.float64, np.uint16])
def test_view1_is_one_fold_under_any_variable_name(tmp_path: Path, save: Any, dtype: Any) -> None:
    save(tmp_path / "train_pairs.mat", {"some_name": view2()[:, :, 0].astype(dtype)})
    pairs = read_aslan_pairs(tmp_path / "train_pairs.mat")
    assert len(pairs) == 600
    assert {pair.fold for pair in pairs} == {0}
    assert pairs[0].a == f"{view2()[0, 0, 0]:04.0f}"


def test_several_unknown_variables_are_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"first": np.zeros((2, 5)), "second": np.zeros((2, 5))})
    message = r"x\.mat: contains the variables first, second; expected 'action_splits_pairs' or a single array"
    with pytest.raises(ValueError, match=message):
        read_aslan_pairs(tmp_path / "x.mat")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 6)), r"contains float64 of shape \(4, 6\); expected numbers of shape \(P, 5\)"),
        (np.array([[1, 2, 2, 1, 1]]), r"column 3 same \(1\) or not \(0\)"),
        (np.array([[0, 2, 1, 1, 1]]), r"sample numbers, 1 to 9999"),
        (np.array([[1, 2.5, 1, 1, 1]]), r"sample numbers, 1 to 9999"),
        (np.array([[1, np.nan, 1, 1, 1]]), r"sample numbers, 1 to 9999"),
        (np.array([[1, np.inf, 1, 1, 1]]), r"sample numbers, 1 to 9999"),
        (np.zeros((0, 5)), r"contains float64 of shape \(0, 5\); expected numbers of shape"),
    ],
)
def test_arrays_without_pairs_are_refused(tmp_path: Path, array: np.ndarray[Any, Any], message: str) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"pairs": array})
    with pytest.raises(ValueError, match=message):
        read_aslan_pairs(tmp_path / "x.mat")


@pytest.mark.parametrize("content", ["", "<html>not found</html>" * 50])
def test_a_file_in_another_format_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_text(content)
    with pytest.raises(ValueError, match=r"x\.mat: not a MATLAB file"):
        read_aslan_pairs(tmp_path / "x.mat")


def test_samples_are_found_with_any_suffix(tmp_path: Path) -> None:
    for name in ("0001.avi", "0002.mp4", "3697.MKV", "notes.txt", "12345.avi"):
        (tmp_path / name).touch()
    pairs = [VideoPair("0001", "3697", True, 0), VideoPair("0002", "0001", False, 3)]
    assert locate_samples(pairs, tmp_path) == [
        VideoPair("0001.avi", "3697.MKV", True, 0),
        VideoPair("0002.mp4", "0001.avi", False, 3),
    ]


def test_missing_and_duplicate_samples_are_reported(tmp_path: Path) -> None:
    (tmp_path / "0001.avi").touch()
    with pytest.raises(ValueError, match=r"2 of 3 samples of the pair list have no file; first: 0002"):
        locate_samples([VideoPair("0001", "0002", True, 0), VideoPair("0003", "0002", True, 0)], tmp_path)
    (tmp_path / "0001.mp4").touch()
    with pytest.raises(ValueError, match=r"0001\.avi and 0001\.mp4 have the same number; keep only one"):
        locate_samples([], tmp_path)
