"""The main process reads the batches that a worker wrote, although both reuse the same memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from v3s.data.handover import BatchReader, BatchWriter, SharedTensor, stack
from v3s.data.loading import load


def batch(number: int, *, length: int) -> tuple[Tensor, Tensor]:
    """Bytes whose order in memory differs from their shape, and labels."""
    clips = torch.full((length, 4, 5, 3), number, dtype=torch.uint8).permute(0, 3, 1, 2)
    return clips, torch.arange(number, number + length)


def same(some: Any, others: Any) -> bool:
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("lengths", [[2, 2, 2, 2, 2], [1, 3, 2, 0, 3], [3, 1, 5, 4, 2]])
def test_batches_arrive_unchanged_and_stay_unchanged(lengths: list[int]) -> None:
    writer, reader = BatchWriter(0, num_slots=2), BatchReader(pin_memory=False)
    sent = [batch(number, length=length) for number, length in enumerate(lengths)]
    received = [reader.read(writer.write(one)) for one in sent]
    assert all(map(same, received, sent))
    assert [clips.stride() for clips, _ in received if len(clips) > 1] == [
        clips.stride() for clips, _ in sent if len(clips) > 1
    ]


def test_memory_is_sent_once_and_again_when_it_was_too_small() -> None:
    writer = BatchWriter(3, num_slots=2)
    written = [writer.write(batch(number, length=length)) for number, length in enumerate([2, 2, 2, 1, 4, 4, 4])]
    assert [clips.memory is not None for clips, _ in written] == [True, True, False, False, True, True, False]
    assert {clips.slot for clips, _ in written} == {(3, 0, 0), (3, 1, 0)}


def test_slots_are_used_in_turn() -> None:
    """A batch is still there after ``num_slots - 1`` others have been written."""
    writer, reader = BatchWriter(0, num_slots=3), BatchReader(pin_memory=False)
    sent = [batch(number, length=2) for number in range(9)]
    written = [writer.write(one) for one in sent[:3]]
    for number in range(3, 9):
        assert same(reader.read(written[number - 3]), sent[number - 3])
        written.append(writer.write(sent[number]))


def test_other_values_pass_unchanged() -> None:
    writer, reader = BatchWriter(0, num_slots=2), BatchReader(pin_memory=False)
    numbered = writer.write((7, torch.ones(2)))
    assert isinstance(numbered[1], SharedTensor)
    assert reader.read(numbered)[0] == 7
    for value in (None, "text", [torch.ones(1)]):
        assert writer.write(value) is value
        assert reader.read(value) is value


def test_stacking_keeps_the_memory_layout() -> None:
    clips = [torch.randint(0, 256, (4, 5, 2, 3), dtype=torch.uint8).permute(3, 2, 0, 1) for _ in range(3)]
    stacked, labels = stack([(clip, torch.tensor([number])) for number, clip in enumerate(clips)])
    assert torch.equal(stacked, torch.stack(clips))
    assert stacked.stride()[1:] == clips[0].stride()
    assert labels.tolist() == [[0], [1], [2]]


class Growing:
    """Samples whose length and bytes depend on their key."""

    def __getitem__(self, key: int) -> tuple[Tensor, Tensor]:
        return torch.full((10_000 * (1 + key % 7),), key, dtype=torch.uint8), torch.tensor(key)

    def path(self, key: int) -> str:
        """The file of a sample."""
        return f"{key}.mp4"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("num_workers", "prefetch"), [(1, 1), (2, 1), (3, 2), (2, 4)])
def test_batches_of_workers_are_never_overwritten(num_workers: int, prefetch: int) -> None:
    """Compared after all have arrived: no later batch overwrote an earlier one, in shared memory or after its copy."""
    batches = load(Growing(), [[key] for key in range(60)], num_workers=num_workers, quarantine=None, prefetch=prefetch)
    for (key,), (values, labels) in list(batches):
        assert labels.tolist() == [key]
        assert values.shape == (1, 10_000 * (1 + key % 7))
        assert bool((values == key).all())
