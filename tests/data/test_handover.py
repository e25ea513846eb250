"""What a reading process lays down is what the main process takes up, though they use the same memory over and over."""

from typing import Any

import pytest
import torch
from torch import Tensor

from v3s.data.handover import Laid, Shelf, Taker, stack
from v3s.data.loading import load


def batch(number: int, *, length: int) -> tuple[Tensor, Tensor]:
    """Bytes that lie in memory otherwise than their shape says, and labels."""
    clips = torch.full((length, 4, 5, 3), number, dtype=torch.uint8).permute(0, 3, 1, 2)
    return clips, torch.arange(number, number + length)


def same(some: Any, others: Any) -> bool:
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("lengths", [[2, 2, 2, 2, 2], [1, 3, 2, 0, 3], [3, 1, 5, 4, 2]])
def test_batches_come_as_they_were_and_stay(lengths: list[int]) -> None:
    shelf, taker = Shelf(0, num_places=2), Taker(pin_memory=False)
    sent = [batch(number, length=length) for number, length in enumerate(lengths)]
    taken = [taker.take(shelf.lay(one)) for one in sent]
    assert all(map(same, taken, sent))
    assert [clips.stride() for clips, _ in taken if len(clips) > 1] == [
        clips.stride() for clips, _ in sent if len(clips) > 1
    ]


def test_memory_is_sent_once_and_again_where_it_is_too_small() -> None:
    shelf = Shelf(3, num_places=2)
    found = [shelf.lay(batch(number, length=length)) for number, length in enumerate([2, 2, 2, 1, 4, 4, 4])]
    assert [clips.memory is not None for clips, _ in found] == [True, True, False, False, True, True, False]
    assert {clips.place for clips, _ in found} == {(3, 0, 0), (3, 1, 0)}


def test_places_are_used_in_turn() -> None:
    """A batch still lies there when ``num_places - 1`` others have been laid."""
    shelf, taker = Shelf(0, num_places=3), Taker(pin_memory=False)
    sent = [batch(number, length=2) for number in range(9)]
    laid = [shelf.lay(one) for one in sent[:3]]
    for number in range(3, 9):
        assert same(taker.take(laid[number - 3]), sent[number - 3])
        laid.append(shelf.lay(sent[number]))


def test_other_values_pass_as_they_are() -> None:
    shelf, taker = Shelf(0, num_places=2), Taker(pin_memory=False)
    numbered = shelf.lay((7, torch.ones(2)))
    assert isinstance(numbered[1], Laid)
    assert taker.take(numbered)[0] == 7
    for value in (None, "text", [torch.ones(1)]):
        assert shelf.lay(value) is value
        assert taker.take(value) is value


def test_samples_are_stacked_as_they_lie() -> None:
    clips = [torch.randint(0, 256, (4, 5, 2, 3), dtype=torch.uint8).permute(3, 2, 0, 1) for _ in range(3)]
    stacked, labels = stack([(clip, torch.tensor([number])) for number, clip in enumerate(clips)])
    assert torch.equal(stacked, torch.stack(clips))
    assert stacked.stride()[1:] == clips[0].stride()
    assert labels.tolist() == [[0], [1], [2]]


class Growing:
    """Samples as long as their keys, of their key's bytes."""

    def __getitem__(self, key: int) -> tuple[Tensor, Tensor]:
        return torch.full((10_000 * (1 + key % 7),), key, dtype=torch.uint8), torch.tensor(key)

    def path(self, key: int) -> str:
        """The file of a sample."""
        return f"{key}.mp4"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("num_workers", "prefetch"), [(1, 1), (2, 1), (3, 2), (2, 4)])
def test_batches_of_processes_stay_what_they_were(num_workers: int, prefetch: int) -> None:
    """Compared when all have come: none was overwritten by a later one, while it lay or after it was taken."""
    found = load(Growing(), [[key] for key in range(60)], num_workers=num_workers, quarantine=None, prefetch=prefetch)
    for (key,), (values, labels) in list(found):
        assert labels.tolist() == [key]
        assert values.shape == (1, 10_000 * (1 + key % 7))
        assert bool((values == key).all())
