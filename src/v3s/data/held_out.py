"""Which videos are held out for validation: of spans those of other files, or of another stretch of time."""

import numpy as np
from numpy.typing import NDArray

from v3s.data.clips import HOLD_OUT, hold_out, num_held_out
from v3s.data.index_table import IndexTable

GAP_SECONDS = 10.0
"""Between held-out spans and training spans of one file lies so much time at least, and a span's length at least."""

_Parts = tuple[NDArray[np.int64], NDArray[np.int64]]


def hold_out_rows(table: IndexTable, num_validation: int | None, seed: int) -> _Parts:
    """Split the rows of a table into training and validation, both sorted.

    Whole videos are drawn one by one, copies with them. Of spans, whole files are drawn, also with their copies, until
    they have enough spans: of these, evenly spaced ones are used, and no other span of these files. Where all spans are
    of one file, or of copies of it, one stretch of time is drawn, and spans next to it are used on neither side.

    Args:
        table: the videos or spans.
        num_validation: number of rows for validation; by default the paper's share.
        seed: seed of the draw.

    Raises:
        ValueError: training or validation would be empty.
    """
    spans = table.spans
    if spans is None:
        return hold_out(len(table), num_validation, seed, table.fingerprints)
    wanted = num_held_out(len(table), num_validation)
    contents = np.array([table.source(number).fingerprint for number in range(len(table.offsets) - 1)], np.uint64)
    _, files = np.unique(contents[spans.sources], return_inverse=True)
    generator = np.random.default_rng((seed, 0, 0, HOLD_OUT))
    if files.max() == 0:
        return _hold_out_stretch(table, wanted, generator)
    counts = np.bincount(files)
    held: list[int] = []
    for file in generator.permutation(len(counts)).tolist():
        if counts[held].sum() >= wanted or len(held) == len(counts) - 1:
            break
        held.append(file)
    is_held = np.isin(files, held)
    rows = np.flatnonzero(is_held)
    chosen = np.linspace(0, len(rows) - 1, min(wanted, len(rows))).round().astype(np.int64)
    return np.flatnonzero(~is_held), rows[np.unique(chosen)]


def _hold_out_stretch(table: IndexTable, wanted: int, generator: np.random.Generator) -> _Parts:
    """Hold out spans of one file that follow one another, and leave out those next to them."""
    spans = table.spans
    assert spans is not None
    order = np.argsort(spans.starts, kind="stable")
    first = int(generator.integers(len(order) - wanted + 1))
    held = order[first : first + wanted]
    gap = max(GAP_SECONDS, float(np.median(spans.ends - spans.starts)))
    start, end = spans.starts[held].min() - gap, spans.ends[held].max() + gap
    train = np.flatnonzero((spans.ends <= start) | (spans.starts >= end))
    if not len(train):
        raise ValueError(
            f"all spans are of one recording, and none is {gap:.0f} s away from the {wanted} that were drawn for "
            "validation; add recordings, or choose fewer --validation-videos or a shorter --segment"
        )
    return train, np.sort(held)
