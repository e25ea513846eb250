"""Names of frames: the order of their numbers, and what is wrong with a series."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v3s.video.container import VideoError
from v3s.video.stills.numbered import are_frames, number_frames


@given(
    st.integers(0, 10**6), st.integers(1, 50), st.integers(2, 60), st.integers(1, 8),
    st.sampled_from(["", "a", "frame ", "cam1_", "%d_", "ü{}"]), st.sampled_from([".png", "_roi2.PNG", "%.jpg"]),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_every_even_series_is_found_in_its_order(
    first: int, step: int, count: int, digits: int, prefix: str, suffix: str, order: random.Random
) -> None:
    names = [f"{prefix}{first + step * number:0{digits}d}{suffix}" for number in range(count)]
    shuffled = names.copy()
    order.shuffle(shuffled)
    found = number_frames(shuffled, "folder")
    assert [found.name(number) for number in range(count)] == names


@pytest.mark.parametrize(
    ("names", "reason", "num_before"),
    [
        (["f_8.png", "f_9.png", "f_11.png", "f_12.png"], "frames are missing between f_9.png and f_11.png", 2),
        (["f_1.png", "f_2.png", "f_3.png", "f_3.5.png"], "has several series of pictures, ", 0),
        (["x_1.png", "x_2.png", "y_1.png", "y_2.png"], "has several series of pictures, x_1.png and y_1.png", 0),
        (["1.png", "2.jpg"], "has several series of pictures, 1.png and 2.jpg", 0),
        (["01-01.png", "01-02.png", "02-01.png"], "has names without one clear number, 01-01.png and 02-01.png", 0),
        (["9.png", "08.png", "10.png"], "has numbers that are filled up in two ways, 08.png and 9.png", 0),
        (["1.png", "01.png", "2.png"], "", 0),
        ([f"{10**30}.png", f"{10**30 + 1}.png"], "has names without one clear number", 0),
    ],
)
def test_what_is_wrong_is_said_in_one_line(names: list[str], reason: str, num_before: int) -> None:
    with pytest.raises(VideoError) as error:
        number_frames(names, "some/folder")
    assert str(error.value).startswith(f"some/folder: {reason}")
    assert "\n" not in str(error.value)
    assert error.value.num_frames == num_before


def test_pictures_without_numbers_are_no_frames() -> None:
    assert are_frames(["img_1.jpg", "img_2.jpg"])
    assert not are_frames(["img_1.jpg"])
    assert not are_frames(["img_1.jpg", "cover.jpg"])
    assert not are_frames([])
