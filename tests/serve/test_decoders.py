"""The processes that decode: a crash or a hang costs one preview, and what is kept is bounded."""

import os
import signal
from pathlib import Path

import pytest

from v3s.data.views import View
from v3s.serve import decoders
from v3s.serve.catalogue import read_catalogue
from v3s.serve.decoders import Decoder, Previews
from v3s.serve.previews import Preview, file_state, make_preview
from v3s.vectors.collection import open_vectors
from v3s.video.index import VideoError


def asked(folder: Path, row: int, kind: str = "picture") -> Preview:
    vectors = open_vectors(folder)
    place, root = vectors.place_of(row), vectors.description.root
    return Preview(root, place, View(), kind, file_state(root, place.file), 320, place.start_seconds, place.end_seconds)


def test_a_crash_is_named_and_the_next_preview_is_made(
    embedded: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder()
    try:
        expected = make_preview(asked(embedded["spans"], 0))
        assert decoder.make(asked(embedded["spans"], 0)) == expected
        connection, process = decoder._connection, decoder._process
        assert connection is not None
        assert process is not None
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)  # it takes the question, and crashes on it
        monkeypatch.setattr(decoders, "_SECONDS", 0.3)
        with pytest.raises(VideoError, match=r"takes longer than 0 s"):
            decoder.make(asked(embedded["spans"], 1))
        monkeypatch.setattr(decoders, "_SECONDS", 120.0)
        assert decoder.make(asked(embedded["spans"], 0)) == expected

        class Crashing:
            """A connection whose other end dies as soon as it is asked."""

            def __init__(self) -> None:
                assert decoder._connection is not None
                self.inner = decoder._connection

            def send(self, value: object) -> None:
                assert decoder._process is not None
                assert decoder._process.pid is not None
                os.kill(decoder._process.pid, signal.SIGSEGV)

            def __getattr__(self, name: str) -> object:
                return getattr(self.inner, name)

        decoder._connection = Crashing()  # type: ignore[assignment]
        with pytest.raises(VideoError, match=r"ended the process \(SIGSEGV\)"):
            decoder.make(asked(embedded["spans"], 1))
        assert decoder.make(asked(embedded["spans"], 0)) == expected
    finally:
        decoder.stop()


def test_what_is_kept_is_bounded_and_made_once(
    embedded: dict[str, Path], previews: Previews, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [asked(embedded["spans"], row, "clip") for row in range(6)]
    first = previews.get(clips[0]).result()
    assert previews.get(clips[0]).result() is first
    most = 3 * len(first)
    monkeypatch.setattr(decoders, "_MAX_BYTES", most)
    for clip in clips[1:]:
        previews.get(clip).result()
    assert sum(map(len, previews._made.values())) == previews._num_bytes <= most
    assert clips[-1] in previews._made


def test_a_file_in_a_collection_that_is_gone_is_a_reason(embedded: dict[str, Path], tmp_path: Path) -> None:
    assert len(read_catalogue(open_vectors(embedded["files"]))) == 8
    with pytest.raises(VideoError, match="is no longer there"):
        file_state(str(tmp_path), str(tmp_path / "absent.avi"))
