"""``v3s compare``: each row is what probe and retrieve measure; a comparison resumes; errors are of pairs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from v3s.backbones import create_backbone
from v3s.backbones.normalisation import KINETICS
from v3s.cli import main
from v3s.data.index_table import IndexTable
from v3s.features.encoder import Encoder
from v3s.features.saved import Trained, plain_sampling, write_trained
from v3s.protocols.compare import CompareConfig, compare
from v3s.protocols.comparison.page import comparison_markdown, comparison_page, conclusion, short_names, table_rows
from v3s.protocols.comparison.rows import MEASURES, Compared, Comparison, Estimate
from v3s.protocols.errors import standard_error
from v3s.protocols.probe import ProbeConfig, probe
from v3s.protocols.retrieve import RetrieveConfig, retrieve

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as v3s convert would write it."""
    network, folder = create_backbone("r3d18", 0.125, seed=3), tmp_path_factory.mktemp("weights") / "converted"
    network.normalisation = KINETICS
    sampling = plain_sampling(4, 32)
    trained = Trained(
        kind="converted", backbone="r3d18", width=0.125, sampling=sampling, results={}, converted_from="r3d_18.pth"
    )
    write_trained(folder, trained, network, {})
    return folder


@pytest.fixture(scope="module")
def config(
    labelled_videos: Path,
    pretrained: Path,
    converted: Path,
    foundations: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> CompareConfig:
    """A comparison of four backbones in a folder of its own, as `compared` runs it."""
    return CompareConfig(
        data=str(labelled_videos),
        backbones=(str(pretrained), str(converted), f"hf:{foundations['videomae']}"),
        num_clips=2,
        workers=0,
        device="cpu",
        precision="fp32",
        out=str(tmp_path_factory.mktemp("comparison")),
    )


@pytest.fixture(scope="module")
def compared(config: CompareConfig) -> Comparison:
    return compare(config, console=QUIET)


def test_every_row_is_what_probe_and_retrieve_measure(config: CompareConfig, compared: Comparison) -> None:
    assert [row.backbone for row in compared.rows] == [f"random:{config.backbones[0]}", *config.backbones]
    alike: dict[str, Any] = {
        "data": config.data, "num_clips": 2, "workers": 0, "device": "cpu", "precision": "fp32", "pool": "mean"
    }  # fmt: skip
    for row in compared.rows:
        probed = probe(ProbeConfig(backbone=row.backbone, few_labels=(5,), **alike), console=QUIET)
        found = retrieve(RetrieveConfig(backbone=row.backbone, **alike), console=QUIET)
        assert (row.linear, row.neighbours, row.retrieval) == (probed.linear.hits, probed.neighbours.hits, found.hits)
        assert (row.dimension, row.k) == (probed.dimension, probed.k)
        share = compared.share(row, "linear")
        assert (share.value, share.error) == (probed.linear.top_1, probed.linear.standard_error)
        assert compared.share(row, "retrieval").value == found.accuracy[1]


def test_videos_without_a_test_part_are_divided_as_by_probe(labelled_videos: Path, tmp_path: Path) -> None:
    data, backbone = str(labelled_videos / "train"), "random:r3d@0.125"
    alike: dict[str, Any] = {"data": data, "num_clips": 1, "workers": 0, "device": "cpu", "seed": 3}
    probed = probe(ProbeConfig(backbone=backbone, few_labels=(5,), **alike), console=QUIET)
    found = compare(CompareConfig(backbones=(backbone,), out=str(tmp_path), **alike), console=QUIET)
    (row,) = found.rows
    assert (found.num_train, row.linear) == (probed.num_train, probed.linear.hits)
    given: dict[str, Any] = alike | {"splits": str(tmp_path / "split"), "seed": 4}
    again = compare(CompareConfig(backbones=(backbone,), out=str(tmp_path / "again"), **given), console=QUIET)
    assert again.test_groups == found.test_groups
    videos = [
        json.loads((folder / "compare.json").read_text())["test_videos"] for folder in (tmp_path, tmp_path / "again")
    ]
    assert videos[0] == videos[1]


def test_what_a_row_says_of_its_backbone(compared: Comparison, foundations: dict[str, Path]) -> None:
    random, own, converted, foundation = compared.rows
    origins = [row.origin for row in compared.rows]
    assert origins == ["random", "pretrained", "converted", "foundation"]
    assert [row.network for row in compared.rows] == ["r3d@0.125", "r3d@0.125", "r3d18@0.125", "videomae"]
    assert random.num_parameters == sum(weight.numel() for weight in create_backbone("r3d", 0.125).parameters())
    assert (own.licence, foundation.licence) == (None, "apache-2.0")
    assert (random.clips, foundation.clips) == ("8 frames of 32 x 32 pixels", "4 frames of 32 x 32 pixels")
    assert converted.few_labels is None  # classes have two videos
    assert compared.random is random


def test_the_files(config: CompareConfig, compared: Comparison) -> None:
    folder = Path(config.out)
    page, markdown = (folder / "compare.html").read_text(), (folder / "compare.md").read_text()
    written = json.loads((folder / "compare.json").read_text())
    for text in (page, markdown):
        assert "Should I train my own?" in text
        for shown in ("yours", "of its source", "apache-2.0", "no weights", "too few videos", "16 neighbours"):
            assert shown in text
        for sentence in conclusion(compared):
            assert sentence.split(" ± ")[0] in text
    assert [row["backbone"] for row in written["rows"]] == [row.backbone for row in compared.rows]
    for row, values in zip(compared.rows, written["rows"], strict=True):
        beyond = compared.difference(row, compared.random, "linear")
        assert values["beyond_random"]["linear"] == {"value": beyond.value, "error": beyond.error}
        assert values["shares"]["linear"]["value"] == sum(row.linear) / 8
    assert len(written["test_videos"]) == len(written["test_groups"]) == 8


def test_backbones_that_are_done_are_not_computed_again(
    config: CompareConfig, compared: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also under another name, and with another backbone added: only that is computed."""
    folder = Path(copytree(config.out, tmp_path / "comparison"))
    run = Path(copytree(config.backbones[0], tmp_path / "run"))
    computed: list[str] = []

    def draw(self: Encoder, table: IndexTable, **_: Any) -> Tensor:
        computed.append(self.source.name)
        return torch.rand(len(table), 4)

    monkeypatch.setattr("v3s.features.encoder.Encoder.mean_vectors", draw)
    again = replace(config, out=str(folder), backbones=(str(run), *config.backbones[1:]))
    found = compare(again, console=QUIET)
    assert computed == []
    assert found.rows[1].backbone == str(run)
    assert replace(found, rows=()) == replace(compared, rows=())
    assert [row.linear for row in found.rows] == [row.linear for row in compared.rows]
    compare(replace(again, backbones=(*again.backbones, "random:c3d@0.125")), console=QUIET)
    assert set(computed) == {"random:c3d@0.125"}  # and no random weights of the run, since some are given
    computed.clear()
    compare(replace(again, seed=1), console=QUIET)
    assert len(set(computed)) == 4


def test_a_folder_of_others_is_left_as_it_is(config: CompareConfig, tmp_path: Path) -> None:
    for content in ({"compare.html": "precious"}, {"compare.json": "{}"}, {"rows/a.json": "{}", "a.mp4": "film"}):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in content.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text)
        before = sorted(out.rglob("*"))
        with pytest.raises(ValueError, match=r"contains something else than v3s compare writes; give a new or empty"):
            compare(replace(config, out=str(out)), console=QUIET)
        assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: "{",
        lambda row: json.dumps({**row, "linear": row["linear"][:-1]}),
        lambda row: json.dumps({**row, "origin": "heaven"}),
        lambda row: json.dumps({**row, "clips_per_second": 0}),
        lambda row: json.dumps({**row, "few_labels": 5.0}),
        lambda row: json.dumps({**row, "dimension": -3}),
        lambda row: json.dumps({**row, "origin": "random"}),
        lambda row: json.dumps({**row, "fingerprint": "0" * 64}),  # as of two files that were swapped
        lambda row: json.dumps({name: value for name, value in row.items() if name != "k"}),
    ],
)
def test_a_damaged_row_is_computed_again(
    damage: Callable[[dict[str, Any]], str],
    config: CompareConfig,
    compared: Comparison,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(copytree(config.out, tmp_path / "comparison"))
    for file in (folder / "rows").iterdir():
        if json.loads(file.read_text())["origin"] == "foundation":
            file.write_text(damage(json.loads(file.read_text())))
    found = compare(replace(config, out=str(folder)), console=Console(width=300))
    printed = capsys.readouterr().out
    assert (printed.count("computed again"), printed.count("is done")) == (1, 3)
    assert [row.linear for row in found.rows] == [row.linear for row in compared.rows]


def test_a_difference_has_the_error_of_its_pairs() -> None:
    first = make_row("a", linear=(True, True, *HALF[2:]))
    second = make_row("b", linear=(False, True, *HALF[2:]))
    found = make_comparison(make_row("random:r3d", "random", linear=NONE), first, second)
    apart = found.difference(first, second, "linear")
    assert apart.value == pytest.approx(1 / 14)
    assert apart.error == standard_error(torch.tensor([1.0] + [0.0] * 13), torch.arange(7).repeat(2))
    assert not found.is_clear(apart)


def test_a_difference_is_clear_if_it_is_significant_over_groups() -> None:
    """Whatever the number of videos: one group, or a few that agree, decide nothing."""
    most = make_row("a", linear=(*ALL[2:], True, False))
    found = make_comparison(make_row("random:r3d", "random", linear=NONE), most)
    few = replace(found, test_groups=(0,) * 4 + (1,) * 4 + (2,) * 6)
    apart = found.difference(most, found.random, "linear")
    assert found.is_clear(apart)
    assert not few.is_clear(few.difference(most, few.random, "linear"))
    alike = found.difference(make_row("b", linear=ALL), found.random, "linear")
    assert alike == Estimate(1.0, 0.0)
    assert found.is_clear(alike)
    assert not few.is_clear(alike)
    assert not found.is_clear(Estimate(0.0, 0.0))


HALF, ALL, NONE = (True, False) * 7, (True,) * 14, (False,) * 14


@pytest.mark.parametrize(
    ("own", "other", "beginning"),
    [
        (ALL, NONE, "Yes: the linear probe on run, your best run, is 50.0 points above that on random:r3d"),
        (NONE, ALL, "Not like this: the linear probe on run, your best run, is 100.0 points below that on"),
        (HALF, HALF, "No clear difference: "),
        (None, ALL, "None of these backbones is a run of yours"),
        (ALL, None, "Yes: the linear probe on run, your best run, is 50.0 points above that on random:r3d"),
        (HALF, NONE, "No clear difference: the linear probe on run, your best run, is level with that on random:r3d"),
    ],
)
def test_the_answer(own: tuple[bool, ...] | None, other: tuple[bool, ...] | None, beginning: str) -> None:
    rows = [make_row("random:r3d", "random", linear=HALF)]
    rows += [make_row("x/run", linear=own)] if own else []
    rows += [make_row("hf:y/model", "foundation", linear=other)] if other else []
    sentences = conclusion(make_comparison(*rows))
    assert sentences[0].startswith(beginning)
    assert ("No converted or foundation model was compared." in sentences) == (other is None)
    if own == NONE:
        assert sentences[1:] == [
            "run is 50.0 points below random weights.",
            "hf:model is 50.0 points above random weights.",
        ]


def test_what_needs_no_video_is_in_the_last_rows() -> None:
    found = replace(make_comparison(make_row("random:r3d", "random")), chance=0.25, majority=0.625)
    assert [row[:5] for row in table_rows(found)[1:]] == [
        ("chance", *["25.0%"] * 4), ("most frequent class", *["62.5%"] * 4)
    ]  # fmt: skip


def test_hostile_names_are_text() -> None:
    name = "hf:a|b <img src=x onerror=alert(1)>\n`c` [d](e)\x1b[31m"
    found = make_comparison(make_row("random:r3d", "random"), make_row(name, "foundation", licence="<b>|mit"))
    page, markdown = comparison_page(found), comparison_markdown(found)
    assert "<img" not in page
    assert "<b>" not in page
    assert "\\<img" in markdown
    for text in (page, markdown):
        assert "\x1b" not in text
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {9, 5, 7}


def test_short_names_are_different() -> None:
    def names(*backbones: str) -> list[str]:
        rows = (make_row(name, "random" if number == 0 else "pretrained") for number, name in enumerate(backbones))
        return short_names(make_comparison(*rows))

    assert names("random:a/run", "a/run", "hf:b/run/") == ["random:run", "run", "hf:run"]
    assert names("random:r3d", "a/run", "b/run") == ["random:r3d", "a/run", "b/run"]
    assert names("random:r3d@0.25", "/") == ["random:r3d@0.25", "/"]


def make_row(name: str, origin: Any = "pretrained", *, linear: tuple[bool, ...] = HALF, **values: Any) -> Compared:
    row = Compared(
        backbone=name, origin=origin, network="r3d@1", fingerprint="0" * 64, clips="8 frames", dimension=4,
        num_parameters=1_000_000, licence=None, clips_per_second=3.0, linear=linear, neighbours=linear, k=2,
        retrieval=linear, few_labels=None, few_labels_error=None,
    )  # fmt: skip
    return replace(row, **values)


def make_comparison(*rows: Compared) -> Comparison:
    return Comparison(
        rows=rows, classes=("a", "b"), num_train=4, test_groups=tuple(range(7)) * 2, chance=0.5, majority=0.5,
        train_source="train", test_source="test", num_clips=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backbones", "message"),
    [
        ("random:r3d@0.125,random:r3d@0.125", "contains 'random:r3d@0.125' twice"),
        ("{run},{run}/", "are the same network with the same clips"),
        ("{run},{run}/backbone.safetensors", "are the same network with the same clips"),
        ("{run},/no/run", "/no/run: no such run folder"),
        ("/no/run", "error: /no/run: no such run folder"),
        ("{run},random", "backbone 'random': random weights are written random:NETWORK, such as random:r3d"),
        ("random", "random weights are written random:NETWORK, such as random:r3d"),
        ("{run},random:", "random weights are written random:NETWORK, such as random:r3d"),
        ("{run},hf:/no/model", "/no/model: no folder with a model"),
        ("", "backbones is empty"),
    ],
)
def test_backbones_that_cannot_be_compared(
    backbones: str, message: str, labelled_videos: Path, pretrained: Path, tmp_path: Path, capsys: Any
) -> None:
    out, names = tmp_path / "out", backbones.format(run=pretrained)
    assert main(["compare", str(labelled_videos), "--backbones", names, "--out", str(out), "--workers", "0"]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error.splitlines()[0]
    assert not out.exists()


def test_the_command_line_takes_backbones_as_words(labelled_videos: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["compare", str(labelled_videos), "--backbones", "random:r3d@0.125", "random:c3d@0.125", "--num-clips", "1"]
    assert main([*words, "--workers", "0", "--out", str(tmp_path)]) == 0
    assert "None of these backbones is a run of yours" in capsys.readouterr().out
    assert len(list((tmp_path / "rows").iterdir())) == 2
    written = json.loads((tmp_path / "compare.json").read_text())
    assert all(row["shares"].keys() == {*MEASURES} for row in written["rows"])
