"""Files that v3s reads back, changed field by field: each is refused with one line that names it, within 2 seconds."""

import copy
import hashlib
import json
import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from v3s.cli import main, read_config
from v3s.commands.pretrain import PretrainConfig
from v3s.data.lists.splits import list_videos
from v3s.data.quarantine import Quarantine
from v3s.data.store_folder import open_store
from v3s.features.saved import kind_of_run, load_pretext_model
from v3s.files.reading import read_json
from v3s.protocols.pairs import read_pairs_csv
from v3s.train.run import config_of_run, read_metrics, take_run
from v3s.vectors.collection import open_vectors
from v3s.vectors.embed import EmbedConfig, embed

QUIET = Console(quiet=True)
SECONDS = 2.0
VALUES: tuple[Any, ...] = (
    None, True, -1, 10**6, 10**18, 3.0, 1e300, float("nan"), "", "/etc", "../../etc/passwd", "\ud800", [], [[]],
    {"kind": "x"},
)  # fmt: skip
DEEP = "[" * 100_000


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value of a JSON object."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(item, dict) or (isinstance(item, list) and path.count(0) < 2):
            yield from places(item, (*path, key))


def forged(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A JSON object with each of its values replaced or missing, and with one more."""
    for path in places(values):
        for new in (*VALUES, "missing"):
            changed = copy.deepcopy(values)
            inside = changed
            for key in path[:-1]:
                inside = inside[key]
            if new is inside[path[-1]] is None:
                continue
            if new == "missing":
                del inside[path[-1]]
            else:
                inside[path[-1]] = new
            yield f"{path} = {new!r}", changed
    yield "unknown", values | {"unknown": 1}


def refuses(what: str, read: Callable[[], object], file: Path) -> bool:
    """Whether reading is refused, in time, by one line that names the file; a change may also make no difference."""
    start = time.process_time()
    try:
        read()
        message = None
    except ValueError as error:
        message = str(error)
    assert time.process_time() - start < SECONDS, what
    assert message is None or ("\n" not in message and file.parent.name in message), f"{what}: {message}"
    return message is not None


def accepted(file: Path, read: Callable[[], object]) -> list[str]:
    """The changes of a JSON file with which reading is not refused."""
    taken = []
    for what, values in forged(json.loads(file.read_text())):
        file.write_text(json.dumps(values))
        if not refuses(what, read, file):
            taken.append(what)
    return taken


def test_config_json(pretrained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(pretrained, tmp_path / "run")
    file = run / "config.json"
    taken = accepted(file, lambda: load_pretext_model(run))
    free = ("format", "results", "converted_from", "sampling")
    numbers = ("task', 'spatial', 0, 'a') = 3.0", "task', 'spatial', 0, 'b') = 3.0")  # as good as any
    assert not unexpected(taken, (*free, *numbers))
    for place, value in (("zoom", "/etc"), ("clip_frames", 10**6), ("canvas_size", "x"), ("blur", float("inf"))):
        values = json.loads((pretrained / "config.json").read_text())
        values["sampling"][place] = value
        file.write_text(json.dumps(values))
        assert refuses(place, lambda: load_pretext_model(run), file)


@pytest.mark.parametrize("content", [DEEP, "", "1", "\x00", "\udcff", "{" * 50], ids=range(6))
def test_a_run_that_is_no_json(content: str, pretrained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(pretrained, tmp_path / "run")
    (run / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    assert refuses(content[:9], lambda: load_pretext_model(run), run / "config.json")


def unexpected(taken: list[str], free: Sequence[str]) -> list[str]:
    """The accepted changes of fields that are not free; a field that is missing has its default."""
    return [what for what in taken if not what.removeprefix("('").startswith(tuple(free)) and what[-9:] != "'missing'"]


BOMBS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{each}: &{each} [*a, *a]\n" for each in "bcdefgh"),
    "nested": "data: " + DEEP,
    "long": "data: [" + "x, " * 10**6 + "]",
    "list of lists": "validation_videos: [[1]]",
    "width": "data: x\nout: y\nwidth: 1000000",
    "clip": "data: x\nout: y\nclip_frames: 1000000\nclip_size: 1000000",
    "binary": "data: \x00",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_yaml(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(BOMBS[name])
    if name not in ("width", "clip"):
        assert refuses(name, lambda: read_config("pretrain", PretrainConfig, [f"--config={file}"]), file)
        with pytest.raises(ValueError, match=str(file)):
            config_of_run(PretrainConfig, tmp_path)
        return
    start = time.process_time()
    assert main(["pretrain", f"--config={file}"]) == 1
    assert time.process_time() - start < SECONDS


@pytest.fixture(scope="module")
def vectors(small_embedding: EmbedConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vectors") / "vectors"
    embed(replace(small_embedding, out=str(out)), console=QUIET)
    return out


def test_vectors_json(vectors: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vectors, tmp_path / "vectors")
    taken = accepted(folder / "vectors.json", lambda: open_vectors(folder))
    free = [
        "format",
        "backbone",
        "seed",
        "network",
        "stages",
        "root",
        "source",
        "num_padded",
        "num_missing",
        "num_gone",
        "left_out",
    ]
    assert not unexpected(taken, free)


def first_video(folder: Path) -> object:
    return open_vectors(folder).video(0)


def test_videos_jsonl(vectors: Path, tmp_path: Path) -> None:
    """Even if whoever changed the list also changed its checksum; the shards state it too."""
    for number, line in enumerate(('{"path": 1}', "[]", "x", DEEP, '{"path": "a", "label": null, "num_frames": -1}')):
        folder = shutil.copytree(vectors, tmp_path / str(number))
        lines = (folder / "videos.jsonl").read_text().splitlines()
        changed = "\n".join([line, *lines[1:]]) + "\n"
        (folder / "videos.jsonl").write_text(changed)
        assert refuses(line[:9], partial(first_video, folder), folder / "videos.jsonl")
        values = json.loads((folder / "vectors.json").read_text())
        values["files_sha256"] = hashlib.sha256(changed.encode()).hexdigest()
        (folder / "vectors.json").write_text(json.dumps(values))
        assert refuses(line[:9], partial(first_video, folder), folder / "videos.jsonl")


def test_store(small_videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert main(["prepare", f"--data={small_videos}", f"--out={store}", "--workers=0"]) == 0
    file = store / "store.json"
    content = file.read_text()
    for what, values in forged(json.loads(content)):
        file.write_text(json.dumps(values))
        os.utime(file, ns=(0, time.monotonic_ns()))  # an opened store is remembered by its date
        assert (
            refuses(what, lambda: open_store(store), file)
            or what.startswith(("('source'", "('decoder'", "('format'"))
            or ("short_side" in what)
            or what in ("('window',) = 'missing'", "('mask',) = 'missing'")  # a store of an earlier version
        ), what
    file.write_text(content)
    shard = next((store / "shards").glob("*.jsonl"))
    lines = shard.read_text().splitlines()
    for changed in ("x", "[]", DEEP, lines[0].replace('"offset": 0', '"offset": "0"'), lines[0].replace(".bin", "/..")):
        shard.write_text("\n".join([changed, *lines[1:]]))
        os.utime(shard, ns=(0, time.monotonic_ns()))
        assert refuses(changed[:20], lambda: open_store(store), shard)


FORGED = ("x", "[]", DEEP, '{"stream": "a"}', '{"stream": 1, "path": "a", "batch": "b"}')


@pytest.mark.parametrize("line", FORGED, ids=range(5))
def test_quarantine(line: str, tmp_path: Path) -> None:
    log = tmp_path / "quarantine.jsonl"
    log.write_text(line + "\n")
    assert refuses(line[:9], lambda: Quarantine(log=log), log)
    log.write_text(line)  # a line that a full disk cut short
    assert not refuses(line[:9], lambda: Quarantine(log=log), log)


def contents_of(text: str) -> Iterator[tuple[str, bytes]]:
    """Contents that no file has, and others that resemble a valid text."""
    yield "nested lists", b"[" * 100_000
    yield "nested objects", b'{"a":' * 100_000
    yield "nested YAML lists", b"data: " + b"[" * 20_000
    yield "nested YAML mappings", b"data: " + b"{a: " * 20_000
    yield "nested lines", b"data:\n" + b"".join(b" " * depth + b"a:\n" for depth in range(1, 430))
    yield "UTF-16 without its mark", text.encode("utf-16-le")
    yield "no text", b"\xff\xfe\xe4" * 10
    yield "zero at the end", text.encode() + b"\0"
    yield "zero", text.encode()[: len(text) // 2] + b"\0" + text.encode()[len(text) // 2 :]
    yield "a list", b"[]"
    yield "an open quote", b'"' + b"a" * 200_000
    yield "spaces", b" " * 100_000_000
    yield "line breaks", b"\n" * 100_000_000
    yield "one long line", b"a" * 100_000_000
    yield "many lists", b"[" + b"[]," * 15_000_000 + b"[]]"
    if name := re.search(r'"(\w+)": ', text):
        yield "a name twice", text.replace("{", f'{{"{name[1]}": 1, ', 1).encode()
    if option := re.search(r"^\w+: .*$", text, re.MULTILINE):
        yield "an option twice", f"{text}{option[0]}\n".encode()
    if number := re.search(r"(?<=[ ,:\[])\d+(?=[,\n}\]])", text):
        yield "5,000 digits", f"{text[: number.start()]}{'1' * 5000}{text[number.end() :]}".encode()


def read_run_videos(run: Path) -> None:
    """As a resumed run reads the contents of its videos."""
    take_run(
        replace(config_of_run(PretrainConfig, run), out=str(run), resume=True), read_json(run / "manifest.json"), {}
    )


READERS: dict[str, Callable[[Path], object]] = {
    "run/config.json": lambda file: load_pretext_model(file.parent),
    "run/config.yaml": lambda file: config_of_run(PretrainConfig, file.parent),
    "run/manifest.json": lambda file: kind_of_run(file.parent),
    "run/videos.jsonl": lambda file: read_run_videos(file.parent),
    "run/metrics.jsonl": read_metrics,
    "run/quarantine.jsonl": lambda file: Quarantine(log=file),
    "vectors/vectors.json": lambda file: open_vectors(file.parent),
    "vectors/videos.jsonl": lambda file: first_video(file.parent),
    "store/store.json": lambda file: open_store(file.parent),
    "store/shards/00000.jsonl": lambda file: open_store(file.parents[1]),
    "options/options.yaml": lambda file: read_config("pretrain", PretrainConfig, [f"--config={file}"]),
    "lists/list.csv": lambda file: list_videos(str(file)),
    "lists/pairs.csv": read_pairs_csv,
    "ucf101/trainlist01.txt": lambda file: list_videos(file.parents[1], splits=str(file.parent), subset="train"),
    "kinetics/train.csv": lambda file: list_videos(file.parents[1], splits=str(file), subset="train"),
}
FREE = {
    "run/metrics.jsonl": r"[\s\S]*",  # lines are read up to the first that is damaged
    "run/quarantine.jsonl": r"[^\n]*|.*\n\0",  # a full disk may have cut the last line
    "lists/list.csv": r".*,1+\n",  # a label is any text
}
"""Contents that need not be refused."""


@pytest.fixture(scope="module")
def written(pretrained: Path, vectors: Path, small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one valid file of each kind."""
    folder = tmp_path_factory.mktemp("written")
    shutil.copytree(pretrained, folder / "run")
    shutil.copytree(vectors, folder / "vectors")
    assert main(["prepare", f"--data={small_videos}", f"--out={folder / 'store'}", "--workers=0"]) == 0
    video = shutil.copy(next(small_videos.rglob("*.mp4")), folder / "xx_000001_000002.mp4")
    texts = {
        "run/quarantine.jsonl": '{"stream": "train 0", "path": "a", "stage": "open", "reason": "x", "batch": 3}\n',
        "options/options.yaml": "data: x\nout: y\nepochs: 3\n",
        "lists/list.csv": f"path,label\n{video},1\n",
        "lists/pairs.csv": "a,b,same,fold\nx.mp4,y.mp4,1,0\n",
        "ucf101/classInd.txt": "1 wave\n",
        "ucf101/trainlist01.txt": "wave/xx_000001_000002.mp4 1\n",
        "kinetics/train.csv": "label,youtube_id,time_start,time_end,split\na,xx,1,2,train\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    shutil.copytree(folder / "ucf101", folder / "splits")
    return folder


@pytest.mark.parametrize("name", READERS)
def test_contents(name: str, written: Path, tmp_path: Path) -> None:
    """In time, in little memory, and with one line that names the file."""
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    file, free = folder / name, re.compile(FREE.get(name, "$.").encode())
    for what, content in contents_of(file.read_text()):
        file.write_bytes(content)
        os.utime(file, ns=(0, time.monotonic_ns()))
        if name == "vectors/videos.jsonl":
            values = json.loads((written / "vectors/vectors.json").read_text())
            values["files_sha256"] = hashlib.sha256(content).hexdigest()
            (folder / "vectors/vectors.json").write_text(json.dumps(values))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        is_refused = refuses(what, partial(READERS[name], file), file)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, what
        assert is_refused or free.fullmatch(content.removeprefix(b"path,label\n")), what


@pytest.mark.parametrize("name", ["config.json", "vectors.json", "videos.jsonl", "store.json"])
def test_a_pipe_is_not_waited_for(name: str, pretrained: Path, vectors: Path, tmp_path: Path) -> None:
    source = vectors if name in ("vectors.json", "videos.jsonl") else pretrained
    folder = shutil.copytree(source, tmp_path / "copy")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    read: Callable[[Path], object] = load_pretext_model if name == "config.json" else open_vectors
    if name == "store.json":
        assert main(["check", f"--data={folder}"]) == 1  # the pipe is not a store, and nothing else there is a video
    else:
        refuses(name, partial(read, folder), folder / name)
