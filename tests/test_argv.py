"""Options from a dataclass: what words, files and the help make of them, and what a user sees of mistakes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from v3s.argv import (
    CONFIG_OPTION,
    HELP_OPTION,
    UsageError,
    build,
    from_yaml,
    help_text,
    options_of,
    parse_words,
    parse_yaml,
    to_yaml,
)
from v3s.options import closest

AS_THEY_ARE = [
    "-x.mp4", "a=b", "=", "", " ", "my file's \"x\".mp4", "a\nb", "\udcff.mp4", "1", "1e5", "0x10", "012", "1.0",
    "true", "no", "null", "None", "~", "~x", "[a].mp4", "[1, 2]", "{a: b}", "a: b", "- a", "#x", "a #x", "&a", "*",
    "!!int 1", "|", "%s", "@file", "'a'", "a,b", "2024-01-01", ".inf", "<<", "é",
]  # fmt: skip
"""Names that a parser may take for something else."""


@dataclass(frozen=True, kw_only=True)
class Videos:
    """Which videos.

    Attributes:
        data: A folder of videos.

    More options:
        splits: Official split lists, with
            videos in data.
        k: Neighbours that vote.
    """

    data: Annotated[str, "DATA"]
    splits: str | None = None
    k: int = 20


@dataclass(frozen=True, kw_only=True)
class Train(Videos):
    """Train a network on 100% of the videos.

    It takes a while.

    Attributes:
        out: Folder of the run.
        learning_rate: Of SGD; default what the network needs.
        resume: Resume the run in the folder.

    For ablations:
        zoom: How near.
        head: Which one.
        stages: Of the network.
        few: Labels of each class.
        scales: How large.
        flip: Mirror clips.

    Raises:
        data: nothing; this section holds no options.
    """

    out: str
    epochs: int = 300
    workers: int | None = None
    learning_rate: float | None = None
    seconds: float = 300.0
    batch_size: int = 32
    zoom: Literal["paper", "even"] = "paper"
    head: Literal["spatial", "temporal"] | None = None
    stages: tuple[str, ...] = ("conv4", "conv5")
    few: tuple[int, ...] = (1, 5)
    scales: tuple[float, ...] = ()
    flip: bool = False
    resume: bool = False
    validation_videos: int | None = None
    backbone: str = "r3d"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be more than 0")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find videos.

    Attributes:
        query: The video to search with.
        vectors: Folder of vectors.
        k: Videos to find.
    """

    query: Annotated[str, "QUERY"]
    vectors: Annotated[str, "--in"]
    k: int = 10


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Put folders together.

    Attributes:
        parts: Folders.
        out: Folder for all of them.
    """

    parts: Annotated[tuple[str, ...], "PART"]
    out: str


def read(kind: type[Any], *words: str) -> dict[str, Any]:
    """The values that words give."""
    return parse_words([*options_of(kind), CONFIG_OPTION], words)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("videos --out run", {"data": "videos", "out": "run"}),
        ("--data videos --out=run", {"data": "videos", "out": "run"}),
        ("--out run -- -videos", {"data": "-videos", "out": "run"}),
        ("--batch-size 16 --epochs=3", {"batch_size": 16, "epochs": 3}),
        ("--batch_size 16", {"batch_size": 16}),
        ("-k 3", {"k": 3}),
        ("-k=3", {"k": 3}),
        ("--k 3", {"k": 3}),
        ("--epochs -1", {"epochs": -1}),
        ("--learning-rate 1e-3 --seconds 5", {"learning_rate": 0.001, "seconds": 5.0}),
        ("--learning-rate -.5 --seconds inf", {"learning_rate": -0.5, "seconds": float("inf")}),
        ("--workers 4", {"workers": 4}),
        ("--workers null --head null", {"workers": None, "head": None}),
        ("--flip --resume", {"flip": True, "resume": True}),
        ("--flip=true --resume=false", {"flip": True, "resume": False}),
        ("--flip=True --no-resume", {"flip": True, "resume": False}),
        ("--zoom even --head spatial", {"zoom": "even", "head": "spatial"}),
        ("--few 1,5 --scales 0.5,1 --stages conv3,conv4", {
            "few": (1, 5), "scales": (0.5, 1.0), "stages": ("conv3", "conv4"),
        }),
        ("--few=7 --few 8,9 --stages=", {"few": (7, 8, 9), "stages": ()}),
        ("--config a.yaml --config=b,c.yaml", {"config": ("a.yaml", "b,c.yaml")}),
    ],
)  # fmt: skip
def test_words(words: str, values: dict[str, Any]) -> None:
    found = read(Train, *words.split())
    assert found == values
    assert [type(value) for value in found.values()] == [type(values[name]) for name in found]


def test_names_of_an_option_and_words_for_it() -> None:
    wanted = {"query": "a.mp4", "vectors": "v", "k": 3}
    for words in ("a.mp4 --in v -k 3", "a.mp4 --vectors v --k 3", "--query a.mp4 --in=v -k=3", "--in v -k 3 -- a.mp4"):
        assert read(Search, *words.split()) == wanted
    assert read(Merge, "a, b", "[c]", "", "--out", "x") == {"parts": ("a, b", "[c]", ""), "out": "x"}
    assert read(Merge, "--parts", "a,b", "--parts=c") == {"parts": ("a", "b", "c")}


@pytest.mark.parametrize("name", AS_THEY_ARE, ids=ascii)
def test_names_stay_as_they_are(name: str) -> None:
    assert read(Train, f"--data={name}", f"--splits={name}") == {"data": name, "splits": name}
    assert read(Train, "--data", name, "--splits", name) == {"data": name, "splits": name}
    assert read(Train, "--", name) == {"data": name}
    if not name.startswith("-"):
        assert read(Train, name) == {"data": name}
        assert read(Merge, name, name) == {"parts": (name, name)}
    config = Train(data=name, out="run", splits=name, stages=(name, name))
    assert from_yaml(Train, to_yaml(config)) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch-sise 3", "unknown option '--batch-sise' (did you mean '--batch-size'?)"),
        ("--lr=3", "unknown option '--lr' (did you mean '--learning-rate'?)"),
        ("--epoch 3", "unknown option '--epoch' (did you mean '--epochs'?)"),
        ("--no-flop", "unknown option '--no-flop'"),
        ("--no-flip=true", "unknown option '--no-flip' (did you mean '--flip'?)"),
        ("-x", "unknown option '-x'"),
        ("--epochs many", "--epochs is 'many'; it must be a whole number"),
        ("--epochs 1.5", "--epochs is '1.5'; it must be a whole number"),
        ("--epochs null", "--epochs is 'null'; it must be a whole number"),
        ("--epochs=", "--epochs is ''; it must be a whole number"),
        ("--workers many", "--workers is 'many'; it must be a whole number"),
        ("--seconds fast", "--seconds is 'fast'; it must be a number"),
        ("--seconds nan", "--seconds is 'nan'; it must be a number"),
        ("--few 1,x", "--few contains 'x'; each value must be a whole number"),
        ("--few [1,2]", "--few contains '[1'; each value must be a whole number"),
        ("--flip=maybe", "--flip is 'maybe'; it must be true or false"),
        ("--zoom x", "--zoom is 'x'; it must be one of paper, even"),
        ("--head x", "--head is 'x'; it must be one of spatial, temporal"),
        ("--data", "--data needs a value; if the value begins with a dash, write --data=VALUE"),
        ("--data --out run", "--data needs a value"),
        ("--data -k 3", "--data needs a value"),
        ("--data A --data B", "--data is given more than once: 'A' and 'B'"),
        ("A --data B", "DATA or --data is given more than once: 'A' and 'B'"),
        ("--flip --no-flip", "--flip or --no-flip is given more than once: 'true' and 'false'"),
        ("--resume --resume", "--resume is given more than once"),
        ("my videos", "DATA is given more than once: 'my' and 'videos'"),
        ("--out run stray", "'stray' does not belong to any option; put an option name before it"),
        ("--resume run", "'run' does not belong to any option"),
    ],
)
def test_wrong_words(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(Train, *words.split())
    assert str(caught.value).startswith(message)


def test_a_word_that_is_given_again_as_an_option_is_explained() -> None:
    with pytest.raises(UsageError) as caught:
        read(Search, "vectors", "--query", "X")
    assert str(caught.value) == (
        "QUERY or --query is given more than once: 'vectors' and 'X'; QUERY is what comes before the first option"
    )
    with pytest.raises(UsageError, match=r"^--query is given more than once: 'X' and 'Y'$"):
        read(Search, "--query", "X", "--query", "Y")


def test_what_must_be_given() -> None:
    with pytest.raises(UsageError, match=r"^DATA and --out are required$"):
        build(Train, {})
    with pytest.raises(UsageError, match=r"^QUERY and --in are required$"):
        build(Search, {"k": 3})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# nothing", {}),
        ("data: videos\nepochs: 7\nflip: true", {"data": "videos", "epochs": 7, "flip": True}),
        ("data: 2024\nout: true", {"data": "2024", "out": "true"}),
        ("splits: null\nworkers:\nhead: ~", {"splits": None, "workers": None, "head": None}),
        ("splits: 'null'\nepochs: '7'", {"splits": "null", "epochs": 7}),
        ("learning_rate: 1e-4\nseconds: .inf\nk: 1_000", {"learning_rate": 1e-4, "seconds": float("inf"), "k": 1000}),
        ("few: [1, 5]\nscales:\n- 1\n- 0.5\nstages: []", {"few": (1, 5), "scales": (1.0, 0.5), "stages": ()}),
        ("few: 1,5\nstages: ['a,b']", {"few": (1, 5), "stages": ("a,b",)}),
        ("flip: yes\nresume: Off", {"flip": True, "resume": False}),
    ],
)
def test_yaml(text: str, values: dict[str, Any]) -> None:
    assert parse_yaml(options_of(Train), text, "a.yaml") == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch-size: 3", "a.yaml: unknown option 'batch-size' (did you mean 'batch_size'?)"),
        ("lr: 3", "a.yaml: unknown option 'lr' (did you mean 'learning_rate'?)"),
        ("config: b.yaml", "a.yaml: unknown option 'config'"),
        ("epochs: many", "a.yaml: epochs is 'many'; it must be a whole number"),
        ("epochs: null", "a.yaml: epochs must be a whole number"),
        ("data:", "a.yaml: data must be text"),
        ("data: {a: b}", "a.yaml: data must be text"),
        ("data: [a, b]", "a.yaml: data is given more than once: 'a' and 'b'"),
        ("data: []", "a.yaml: data must be text"),
        ("few: [[1]]", "a.yaml: few must be a whole number"),
        ("epochs: 1\nepochs: 2", "a.yaml: epochs is given twice"),
        ("no options", "a.yaml is not a valid options file"),
        ("- data", "a.yaml is not a valid options file"),
        ("data: a\n\tb: [", "a.yaml is not valid YAML, line 2: "),
        ("data: \0", "a.yaml is not valid YAML: "),
        ("data: " + "[" * 5_000, "a.yaml is not valid YAML: "),
    ],
)
def test_wrong_yaml(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml(options_of(Train), text, "a.yaml")
    assert str(caught.value).startswith(message)


def test_yaml_there_and_back() -> None:
    plain = Train(data="videos", out="run")
    assert to_yaml(plain, without=("resume",)).splitlines()[:4] == ["data: videos", "k: 20", "out: run", "epochs: 300"]
    every = replace(plain, splits="é", learning_rate=1e-7, seconds=float("inf"), few=(), scales=(1.0,), flip=True)
    for config in (plain, every):
        assert from_yaml(Train, to_yaml(config)) == config


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--lr", "--learning-rate"), ("--bs", "--batch-size"), ("--learning_rte", "--learning-rate"),
        ("--rate", "--learning-rate"), ("--lrate", "--learning-rate"), ("--batch", "--batch-size"),
        ("--valid", "--validation-videos"), ("--videos", "--validation-videos"), ("--Epochs", "--epochs"),
        ("-o", "--out"), ("--gpu", ""), ("---", ""), ("--", ""), ("--\udcff", ""),
    ],
)  # fmt: skip
def test_what_was_probably_meant(word: str, hint: str) -> None:
    names = [name for option in options_of(Train) for name in option.names]
    assert closest(word, names) == (f" (did you mean {hint!r}?)" if hint else "")


def test_two_folders_and_a_file_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both errors name what works: one pattern, and a path that does not begin with the dash."""
    with pytest.raises(UsageError, match=r"'a' and 'b'; write one pattern, '\{a,b\}'"):
        parse_words(options_of(Train), ["a", "b"])
    monkeypatch.chdir(tmp_path)
    Path("-dash.avi").touch()
    with pytest.raises(UsageError, match=r"unknown option '-dash.avi'; the file is \./-dash\.avi"):
        parse_words(options_of(Train), ["-dash.avi"])


def test_several_may_be_meant() -> None:
    names = ["--clip-size", "--batch-size", "--size-limit", "--resize", "--canvas-size"]
    assert closest("--size", names) == " (did you mean '--size-limit'?)"
    assert closest("--c", names) == " (did you mean '--clip-size' or '--canvas-size'?)"


HELP_OF_TRAIN = """\
usage: v3s train DATA --out OUT [options]

Train a network on 100% of the videos.

It takes a while.

options:
  DATA, --data DATA       A folder of videos. (required)
  --out OUT               Folder of the run. (required)
  --learning-rate X       Of SGD; default what the network needs.
  --resume                Resume the run in the folder.
  --epochs N              (default 300)
  --workers N
  --seconds X             (default 300.0)
  --batch-size N          (default 32)
  --validation-videos N
  --backbone BACKBONE     (default r3d)

more options:
  --splits SPLITS         Official split lists, with videos in data.
  -k, --k N               Neighbours that vote. (default 20)
  --config FILE           A YAML file of options. A later --config overrides it,
                          and the command line overrides both.
  -h, --help              Show this help and exit.

for ablations:
  --zoom NAME             How near. (one of paper, even; default paper)
  --head NAME             Which one. (one of spatial, temporal)
  --stages STAGES,...     Of the network. (default conv4,conv5)
  --few N,...             Labels of each class. (default 1,5)
  --scales X,...          How large.
  --flip                  Mirror clips.

examples:
  v3s train videos --out run
  v3s train --out run --resume"""


def test_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    examples = ["v3s train videos --out run", "v3s train --out run --resume"]
    assert help_text("v3s train", Train, [*options_of(Train), CONFIG_OPTION, HELP_OPTION], examples) == HELP_OF_TRAIN
    shown = help_text("v3s merge", Merge, options_of(Merge), []).splitlines()
    assert shown[0] == "usage: v3s merge PART ... --out OUT [options]"
    assert "  QUERY, --query QUERY" in help_text("v3s search", Search, options_of(Search), [])
    assert "  --in, --vectors VECTORS\n" in help_text("v3s search", Search, options_of(Search), [])
    monkeypatch.setenv("COLUMNS", "5")  # a window that is nearly closed
    assert max(map(len, help_text("v3s merge", Merge, options_of(Merge), []).splitlines())) <= 45
