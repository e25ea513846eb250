"""The pair lists of the ASLAN data set in the format that its authors distribute (paper section 4.5).

View-1 (``train_pairs.mat``, ``test_pairs.mat``) is for model selection, View-2 (``View2.mat``, ten splits of 600 pairs)
for the reported accuracy. A row contains two sample numbers, same (0 or 1) and two action numbers; sample 7 is the
video file ``0007``, with any suffix.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from v3s.files.text import verb
from v3s.options import import_extra
from v3s.protocols.pairs import VideoPair

_VIEW2_VARIABLE = "action_splits_pairs"
_NUM_COLUMNS = 5


def read_aslan_pairs(path: str | Path) -> list[VideoPair]:
    """Read one of ASLAN's lists from a MATLAB file, in the old format or in version 7.3 (HDF5).

    The pairs are the variable ``action_splits_pairs`` if it exists, otherwise the only array in the file.

    Args:
        path: ``View2.mat`` (an array P x 5 x folds), or ``train_pairs.mat`` or ``test_pairs.mat`` (P x 5: fold 0).

    Returns:
        The pairs, fold by fold; videos are named by their number, ``0001`` to ``3697``.

    Raises:
        ValueError: the file is not a MATLAB file, it is unclear which array to read, or the array is not a pair list.
    """
    array = _single_array(Path(path))
    if array.ndim not in (2, 3) or array.shape[1] != _NUM_COLUMNS or not array.size or array.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: contains {array.dtype} of shape {array.shape}; expected numbers of shape (P, 5) or (P, 5, folds)"
        )
    array = array.reshape(len(array), _NUM_COLUMNS, -1)
    samples, same = array[:, :2], array[:, 2]
    if (array != array.round()).any() or ((samples < 1) | (samples > 9999)).any() or not np.isin(same, (0, 1)).all():
        raise ValueError(f"{path}: columns 1 and 2 must be sample numbers, 1 to 9999, column 3 same (1) or not (0)")
    return [
        VideoPair(f"{int(row[0]):04d}", f"{int(row[1]):04d}", bool(row[2]), fold)
        for fold in range(array.shape[2])
        for row in array[:, :, fold]
    ]


def locate_samples(pairs: list[VideoPair], folder: str | Path) -> list[VideoPair]:
    """Replace sample numbers by the names of files in a folder, e.g. ``0007`` by ``0007.mp4``.

    Raises:
        ValueError: two files in the folder share a number, or a sample of the pairs has no file.
    """
    files: dict[str, str] = {}
    for file in sorted(Path(folder).iterdir()):
        if re.fullmatch(r"\d{4}", file.stem) and file.is_file():
            if file.stem in files:
                raise ValueError(
                    f"{folder}: {files[file.stem]} and {file.name} have the same number; keep only one of them"
                )
            files[file.stem] = file.name
    samples = {name for pair in pairs for name in (pair.a, pair.b)}
    if missing := sorted(samples - files.keys()):
        raise ValueError(
            f"{folder}: {len(missing):,} of {len(samples):,} samples of the pair list {verb(len(missing), 'have')} no "
            f"file; first: {missing[0]}; give the folder of ASLAN's videos, which are named by these numbers"
        )
    return [VideoPair(files[pair.a], files[pair.b], pair.same, pair.fold) for pair in pairs]


def _single_array(path: Path) -> np.ndarray[Any, Any]:
    """Read the array that contains the pairs."""
    arrays = _read_matlab(path)
    if _VIEW2_VARIABLE in arrays:
        return arrays[_VIEW2_VARIABLE]
    if len(arrays) != 1:
        names = ", ".join(arrays) or "none"
        raise ValueError(f"{path}: contains the variables {names}; expected {_VIEW2_VARIABLE!r} or a single array")
    return next(iter(arrays.values()))


def _read_matlab(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read all arrays of a MATLAB file of either format, by name."""
    h5py, scipy_io = (import_extra(name, "eval", "ASLAN's list") for name in ("h5py", "scipy.io"))
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:  # HDF5 stores MATLAB's arrays with their axes in reverse order
                return {name: item[()].T for name, item in file.items() if isinstance(item, h5py.Dataset)}
        content = scipy_io.loadmat(path)
    except Exception as error:  # of a damaged file, whatever its reader runs into
        raise ValueError(f"{path}: not a MATLAB file ({error}); use the file from ASLAN's own archive") from error
    return {name: array for name, array in content.items() if not name.startswith("__")}
