"""No group is on both sides of a division that a command makes; each asks for groups before videos are read."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from v3s import PretrainConfig
from v3s.backbones.device import choose_compute
from v3s.commands.audit import AuditConfig, audit
from v3s.commands.pixel_cues import probe_cues
from v3s.commands.pretrain import set_up_pretraining
from v3s.data.index_table import IndexTable
from v3s.data.synthetic import make_clips
from v3s.protocols.classify import linear_probe
from v3s.protocols.finetune import FinetuneConfig, set_up_finetuning
from v3s.protocols.probe import ProbeConfig, probe
from v3s.train.distributed import Processes

QUIET = Console(quiet=True)
PER_GROUP = 3
SEEDS = range(6)


@pytest.fixture(scope="module", params=["named as in UCF101", "by a pattern"])
def takes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str | None]:
    """Two classes, each with 4 groups of 3 training videos and 2 of 2 test videos; and the pattern for --group."""
    folder = tmp_path_factory.mktemp("takes")
    made = make_clips(folder / "made", num_videos=32, num_frames=20, height=32, width=48)
    is_ucf = request.param == "named as in UCF101"
    name = "{part}/{kind}/v_{kind}_g{group:02}_c{take:02}.mp4" if is_ucf else "{part}/{kind}/cage{group} day{take}.mp4"
    places = [("train", kind, group, take) for kind in "ab" for group in range(4) for take in range(PER_GROUP)]
    places += [("test", kind, group, take) for kind in "ab" for group in (4, 5) for take in range(2)]
    for (part, kind, group, take), source in zip(places, made, strict=True):
        path = folder / "data" / name.format(part=part, kind=kind, group=group, take=take)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    return folder / "data", None if is_ucf else r"(\w/cage\d)"


def groups_of(table: IndexTable) -> set[str]:
    """Class and group of each video, from its name."""
    paths = (Path(video.path) for video in table)
    return {path.parent.name + re.findall(r"g\d\d|cage\d", path.name)[0] for path in paths}


def check_sides(train: IndexTable, other: IndexTable, num_other: int) -> None:
    assert not groups_of(train) & groups_of(other)
    assert len(groups_of(train) | groups_of(other)) == 8
    assert (len(train) + len(other), len(other)) == (24, num_other)


@pytest.mark.parametrize("seed", SEEDS)
def test_pretraining_validates_on_other_groups(takes: tuple[Path, str | None], seed: int) -> None:
    data, group = takes
    config = PretrainConfig(
        data=str(data), out="", group=group, task="ts", clip_frames=4, clip_size=16, validation_videos=5, width=0.125,
        workers=0, seed=seed, device="cpu",
    )  # fmt: skip
    job = set_up_pretraining(config, compute=choose_compute("cpu", "fp32"), processes=Processes(), console=QUIET)
    check_sides(job.train.table, job.validation.table, 6)  # 5 are not possible; 6 are nearer than 3


@pytest.mark.parametrize("pattern", [None, r"(\w/v_\w_g\d\d|\w/cage\d)"])
def test_spans_of_a_file_and_of_a_group_stay_together(takes: tuple[Path, str | None], pattern: str | None) -> None:
    """In every command that divides; of what is held out, no more spans are used than were asked for."""
    options: dict[str, Any] = {
        "data": str(takes[0]),
        "group": pattern,
        "segment": 0.4,
        "clip_frames": 4,
        "clip_size": 16,
        "workers": 0,
    }
    unit: Callable[[IndexTable], set[str]] = groups_of if pattern or takes[1] is None else paths_of
    for seed in SEEDS:
        compute = choose_compute("cpu", "fp32")
        config = PretrainConfig(**options, out="", task="ts", validation_videos=10, width=0.125, seed=seed)
        job = set_up_pretraining(config, compute=compute, processes=Processes(), console=QUIET)
        tuned = FinetuneConfig(**options, out="", backbone="random:r3d@0.125", validation_videos=10, seed=seed)
        tuning = set_up_finetuning(tuned, QUIET)
        for train, held in ((job.train.table, job.validation.table), (tuning.train.table, tuning.validation.table)):
            assert not unit(train) & unit(held)
            assert 6 <= len(held) <= 10
            assert len(train) >= 0.6 * 48


def paths_of(table: IndexTable) -> set[str]:
    return {video.path for video in table}


@pytest.mark.parametrize("seed", SEEDS)
def test_fine_tuning_validates_on_other_groups(takes: tuple[Path, str | None], seed: int) -> None:
    data, group = takes
    config = FinetuneConfig(
        data=str(data), out="", backbone="random:r3d@0.125", group=group, clip_frames=4, clip_size=16,
        validation_videos=7, workers=0, seed=seed, device="cpu",
    )  # fmt: skip
    job = set_up_finetuning(config, QUIET)
    check_sides(job.train.table, job.validation.table, 6)
    assert job.parts.num_test_groups == 4


def test_an_audit_tests_its_probe_on_other_groups(
    takes: tuple[Path, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, group = takes
    drawn: list[tuple[IndexTable, Any]] = []

    def recorded(clips: Any, cues: Any, labels: Any, videos: Any, parts: Any, groups: Any) -> Any:
        drawn.append((clips.table, parts))
        found = probe_cues(clips, cues, labels, videos, parts, groups)
        assert {head.num_groups for heads in found.values() for head in heads} == {3}
        return found

    monkeypatch.setattr("v3s.commands.audit.probe_cues", recorded)
    options: dict[str, Any] = {"task": "ts", "clip_frames": 4, "clip_size": 16, "clips": 1, "workers": 0}
    result = audit(AuditConfig(data=str(data), group=group, **options), console=QUIET)
    table, (trained, tested) = drawn[0]
    check_sides(table.subset(trained), table.subset(tested), 9)
    assert "9 clips of 9 videos in 3 groups" in result.title


def test_a_probe_chooses_its_penalty_on_other_groups(
    takes: tuple[Path, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, group = takes
    seen: list[Any] = []

    def recorded(*arguments: Any, groups: Any, **named: Any) -> Any:
        seen.append(groups.tolist())
        return linear_probe(*arguments, groups=groups, **named)

    monkeypatch.setattr("v3s.protocols.probe.linear_probe", recorded)
    config = ProbeConfig(
        data=str(data), backbone="random:r3d@0.125", group=group, clip_frames=4, clip_size=16, num_clips=1, workers=0,
        few_labels=(), device="cpu",
    )  # fmt: skip
    probe(config, console=QUIET)
    assert seen == [np.repeat(range(8), PER_GROUP).tolist()]


def evaluating(options: dict[str, Any]) -> None:
    audit(AuditConfig(**options), console=QUIET)


def pretraining(options: dict[str, Any]) -> None:
    config = PretrainConfig(**options, out="", width=0.125)
    set_up_pretraining(config, compute=choose_compute("cpu", "fp32"), processes=Processes(), console=QUIET)


def fine_tuning(options: dict[str, Any]) -> None:
    set_up_finetuning(FinetuneConfig(**options, out="", backbone="random:r3d@0.125"), QUIET)


@pytest.mark.parametrize("command", [evaluating, pretraining, fine_tuning])
@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("[ab]/(.)", r"group is '\[ab\]/\(\.\)', which puts all 24 videos in one group"),
        ("a/", "group is 'a/', which does not match 12 of 24 paths"),
        ("(", r"group is '\(', which is not a regular expression"),
    ],
)
def test_a_pattern_that_does_not_divide_is_refused_before_anything_is_read(
    command: Callable[[dict[str, Any]], None], pattern: str, problem: str, takes: tuple[Path, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*arguments: Any, **named: Any) -> None:
        raise AssertionError("videos were read")

    for module in ("commands.audit", "commands.pretrain", "protocols.labelled"):
        monkeypatch.setattr(f"v3s.{module}.usable_videos", fail)
    with pytest.raises(ValueError, match=f"^{problem}"):
        command({"data": str(takes[0]), "group": pattern, "workers": 0, "device": "cpu"})


@pytest.mark.parametrize("takes", ["named as in UCF101"], indirect=True)
def test_videos_of_one_group_by_their_names_are_refused_in_one_line(takes: tuple[Path, str | None]) -> None:
    data, _ = takes
    one = data.parent / "one.txt"
    one.write_text("".join(f"{path}\n" for path in sorted((data / "train").rglob("v_a_g01_*"))))
    options = {"task": "ts", "clip_frames": 4, "clip_size": 16, "workers": 0, "device": "cpu"}
    with pytest.raises(ValueError, match=r"^all 3 usable videos belong together.* or change --group$"):
        pretraining({"data": str(one), **options})
    pretraining({"data": str(one), "group": ".+", **options})  # each is alone
