"""The tables of a study as Markdown: ``python -m benchmarks.study_tables STUDY TABLE [--charts FOLDER]``.

The tables are computed from the files of the runs. A study is a folder of runs ``<network>-<row>-<seed>``. Each is a
run of ``v3s pretrain`` (an ordinary folder for rows of random weights), and also contains the results of its network:
retrieve.json, probe.json, evaluate.json, audit.json, similarity.json and finetune/result.json.
"""

import argparse
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.study import DEFAULT, RANDOM
from v3s.commands.paper_tables import TABLES
from v3s.commands.pretrain import PretrainConfig
from v3s.files.reading import read_json
from v3s.pages.charts import line_chart
from v3s.pages.templates import write_page
from v3s.pretext.task import TASKS
from v3s.protocols.errors import standard_error
from v3s.train.run import MANIFEST, METRICS, config_of_run, read_metrics

Result = Mapping[str, Any]
Group = tuple[str, str]
"""Network and row."""

ORDER = (RANDOM, DEFAULT, "ss", "sp", "ss+sp", "ts", "tp", "ts+tp", "v3s")


def _paper(*tables: str) -> dict[Group, float]:
    """Top-1 accuracy in percent on all of UCF101, split 1, in tables of the paper, by network and row."""
    rows = (row for table in tables for row in TABLES[table].rows)
    return {(row.backbone, row.task or RANDOM): row.paper[0] for row in rows}


PAPER_RECOGNITION, PAPER_RETRIEVAL = _paper("table2", "table3"), _paper("table4")


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One network of a study, trained once with one seed."""

    folder: Path
    network: str
    row: str
    seed: int

    def result(self, file: str) -> Result | None:
        """The result file of a protocol, or None if it does not exist yet."""
        path = self.folder / file
        return read_json(path) if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Layout:
    """How to make a table from the files of a protocol.

    Attributes:
        file: the file that the protocol writes in the folder of a run.
        columns: how to find the share in [0, 1] for each column; NaN if there is nothing to show.
        chance: the same for the last line, or None.
        paper: the number of the paper in percent, to compare with the first column.
        needs_heads: whether the protocol needs the heads of pre-training, which random weights do not have.
        hits: how to find the verdict on each test video that the first column is the mean of, if the file has them.
    """

    file: str
    columns: dict[str, Callable[[Result], float]]
    chance: dict[str, Callable[[Result], float]] | None = None
    paper: Mapping[Group, float] | None = None
    needs_heads: bool = False
    hits: tuple[str, ...] = ()


def _at(*path: str) -> Callable[[Result], float]:
    def look_up(result: Result) -> float:
        value: Any = result
        for key in path:
            value = value[key]
        return math.nan if value is None else float(value)

    return look_up


def _of_head(value: str, *path: str) -> Callable[[Result], float]:
    """The score of a head; NaN for a head with only one label, which has nothing to distinguish."""
    look_up, chance = _at(*path, value), _at(*path, "chance")
    return lambda result: look_up(result) if chance(result) < 1 else math.nan


def _few(per_class: int) -> Callable[[Result], float]:
    return lambda result: next((run["mean"] for run in result["few_labels"] if run["per_class"] == per_class), math.nan)


_HEADS = ("spatial", "temporal")
_STIMULI = ("video", "frozen", "shuffled", "still noise", "moving noise")
LAYOUTS = {
    "retrieval": Layout(
        "retrieve.json",
        {f"top {k}": _at("accuracy", str(k)) for k in (1, 5, 10, 20, 50)} | {"mAP": _at("mean_average_precision")},
        {f"top {k}": _at("chance", str(k)) for k in (1, 5, 10, 20, 50)} | {"mAP": _at("chance_precision")},
        PAPER_RETRIEVAL,
        hits=("hits",),
    ),
    "probe": Layout(
        "probe.json",
        {"linear": _at("linear", "top_1"), "neighbours": _at("neighbours", "top_1")}
        | {f"linear, {number} per class": _few(number) for number in (1, 5, 10)}
        | {"shuffled labels": _at("shuffled", "mean")},
        {"linear": _at("chance"), "neighbours": _at("chance")},
        hits=("linear", "hits"),
    ),
    "recognition": Layout(
        "finetune/result.json",
        {"top 1": _at("top_1"), "top 5": _at("top_5")},
        {"top 1": _at("chance")},
        PAPER_RECOGNITION,
        hits=("hits",),
    ),
    "similarity": Layout("similarity.json", {"accuracy": _at("result", "mean")}, {"accuracy": _at("chance")}),
    "pretext": Layout(
        "evaluate.json",
        {
            f"{head}{text}": _of_head(key, head)
            for head in _HEADS
            for text, key in (("", "accuracy"), (" chance", "chance"))
        },
        needs_heads=True,
    ),
    **{
        f"audit-{head}": Layout(
            "audit.json",
            {name: _of_head("accuracy", "rows", name, head) for name in _STIMULI}
            | {"chance": _of_head("chance", "rows", "video", head)},
            needs_heads=True,
        )
        for head in _HEADS
    },
}  # fmt: skip
TABLE_NAMES = ("budget", *LAYOUTS, "pixels", "curves")


def study_table(study: Path, table: str, charts: Path = Path()) -> str:
    """One table of a study as Markdown.

    Args:
        study: the folder of its runs.
        table: one of `TABLE_NAMES`; "curves" draws the learning curves of both heads.
        charts: the folder for the SVG files of the curves.

    Raises:
        ValueError: the folder does not contain runs, or none of them has results for the table.
    """
    if table == "pixels":
        return pixels_table(study)
    if table == "budget":
        return budget_table(group_runs(study))
    if table == "curves":
        return draw_curves(group_runs(study), charts)
    return layout_table(group_runs(study), LAYOUTS[table])


def group_runs(study: Path) -> dict[Group, list[StudyRun]]:
    """The runs of a study by network and row, in the order of the paper; the runs of a group differ only by seed.

    Raises:
        ValueError: there are no runs.
    """
    groups: dict[Group, list[StudyRun]] = {}
    for folder in sorted(study.iterdir()) if study.is_dir() else ():
        match = re.fullmatch(r"([^-]+)-(.+)-(\d+)", folder.name)
        if match and folder.is_dir():
            run = StudyRun(folder, match[1], match[2], int(match[3]))
            groups.setdefault((run.network, run.row), []).append(run)
    if not groups:
        raise ValueError(f"{study} does not contain runs (<network>-<row>-<seed>, as benchmarks/study.py makes them)")
    return dict(sorted(groups.items(), key=lambda item: _place(item[0])))


def _place(group: Group) -> tuple[str, int, str]:
    network, row = group
    return network, ORDER.index(row) if row in ORDER else len(ORDER), row


def layout_table(groups: Mapping[Group, Sequence[StudyRun]], layout: Layout) -> str:
    """Mean and spread over the seeds of each group, the lead over random weights, and the number of the paper.

    Raises:
        ValueError: no run has the file that the table needs.
    """
    results = {group: [one for run in runs if (one := run.result(layout.file))] for group, runs in groups.items()}
    results = {group: own for group, own in results.items() if own}
    if not results:
        raise ValueError(f"no run of the study has {layout.file} yet")
    compared = any(row == RANDOM for _, row in results)
    header = ["network", "row", *layout.columns, *(["over random"] if compared else [])]
    header += [*(["paper (all of UCF101)"] if layout.paper else []), "seeds"]
    rows = []
    for (network, row), own in results.items():
        cells = [
            spread([look_up(result) for result in (own[:1] if name.endswith("chance") else own)])
            for name, look_up in layout.columns.items()
        ]
        if compared:
            cells.append(_lead(layout, own, results.get((network, RANDOM)), row))
        if layout.paper:
            cells.append(f"{layout.paper[network, row]:.1f}" if (network, row) in layout.paper else "")
        rows.append([network, row, *cells, str(len(own))])
    if layout.chance:
        any_result = next(iter(results.values()))[0]
        cells = [f"{layout.chance[name](any_result):.1%}" if name in layout.chance else "" for name in layout.columns]
        rows.append(["", "chance", *cells, *[""] * (len(header) - 2 - len(cells))])
    missing = [
        run.folder.name
        for runs in groups.values()
        for run in runs
        if run.result(layout.file) is None and not (layout.needs_heads and run.row in (RANDOM, DEFAULT))
    ]
    note = f"\n\nWithout {layout.file} so far: {', '.join(missing)}." if missing else ""
    return markdown(header, rows) + note


def spread(shares: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds, in percent; only the mean for one seed; a dash for NaN."""
    if any(map(math.isnan, shares)):
        return "-"
    mean = f"{100 * statistics.fmean(shares):.1f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.1f} %" if len(shares) > 1 else f"{mean} %"


def _lead(layout: Layout, results: Sequence[Result], random: Sequence[Result] | None, row: str) -> str:
    """The first column's lead over random weights, and its error if the files contain the verdicts on all videos."""
    if random is None or row == RANDOM:
        return ""
    look_up = next(iter(layout.columns.values()))
    lead = f"{100 * (statistics.fmean(map(look_up, results)) - statistics.fmean(map(look_up, random))):+.1f}"
    error = lead_error(layout, results, random)
    return lead if error is None else f"{lead} ± {100 * error:.1f}"


def lead_error(layout: Layout, results: Sequence[Result], random: Sequence[Result]) -> float | None:
    """The standard error of the lead of one row over another: over groups of videos, paired, and over the seeds.

    Both rows are asked about the same videos, so the error over groups is that of the videos' differences, each the
    mean over the seeds. The errors of both means over the seeds are added to it; a row with one seed has none.
    """
    both = [[_verdicts(layout, result) for result in row] for row in (results, random)]
    videos = list(both[0][0])
    if not videos or any(verdicts.keys() != both[0][0].keys() for row in both for verdicts in row):
        return None
    shares = [torch.tensor([[row[video] for video in videos] for row in rows], dtype=torch.float64) for rows in both]
    groups = torch.tensor(results[0]["test_groups"])
    of_videos = standard_error(shares[0].mean(dim=0) - shares[1].mean(dim=0), groups)
    of_seeds = [float(rows.mean(dim=1).var()) / len(rows) for rows in shares if len(rows) > 1]
    return math.sqrt(of_videos**2 + sum(of_seeds))


def _verdicts(layout: Layout, result: Result) -> dict[str, bool]:
    """Whether each test video is right; empty if the file does not say."""
    hits: Any = result
    for key in layout.hits:
        hits = hits.get(key, {})
    if not layout.hits or not hits or "test_videos" not in result:
        return {}
    return dict(zip(result["test_videos"], hits, strict=True))


def budget_table(groups: Mapping[Group, Sequence[StudyRun]]) -> str:
    """How each group was trained: all values if its runs differ, and their mean number of minutes."""
    header = ["network", "row", "width", "clip", "epochs", "batch", "rate", "videos", "clips seen", "minutes", "seeds"]
    rows = []
    for (network, row), runs in groups.items():
        trained = [_budget(run) for run in runs if (run.folder / METRICS).is_file()]
        if trained:
            cells = [", ".join(dict.fromkeys(values)) for values in zip(*trained, strict=True)]
            minutes = statistics.fmean(_minutes(run) for run in runs if (run.folder / METRICS).is_file())
            rows.append([network, row, *cells, f"{minutes:.1f}", ", ".join(str(run.seed) for run in runs)])
    if not rows:
        raise ValueError("no run of the study has finished an epoch yet")
    return markdown(header, rows)


def _budget(run: StudyRun) -> list[str]:
    config, num_epochs = config_of_run(PretrainConfig, run.folder), len(read_metrics(run.folder / METRICS))
    described = read_json(run.folder / "config.json")["sampling"]
    epochs = f"{num_epochs}" if num_epochs >= config.epochs else f"{num_epochs} of {config.epochs}"
    clip = f"{described['clip_frames']}x{described['clip_size']}x{described['clip_size']}"
    numbers = [f"{config.width:g}", clip, epochs, str(config.batch_size), f"{config.initial_rate:g}"]
    return [*numbers, f"{_num_videos(run):,}", f"{clips_seen(run):,}"]


def _num_videos(run: StudyRun) -> int:
    number: int = read_json(run.folder / MANIFEST)["videos"]["train"]
    return number


def clips_seen(run: StudyRun) -> int:
    """The number of training clips in the epochs that a run has finished."""
    config = config_of_run(PretrainConfig, run.folder)
    order = config.order(_num_videos(run), num_epochs=config.epochs, seed=config.seed)
    return len(read_metrics(run.folder / METRICS)) * order.clips_per_epoch


def _minutes(run: StudyRun) -> float:
    """Minutes of training, without validation."""
    return math.fsum(line["seconds"] for line in read_metrics(run.folder / METRICS)) / 60


def pixels_table(study: Path) -> str:
    """The accuracy of a linear probe on a few statistics of each clip, by setting and cue."""
    path = study / "pixels.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; make it with v3s audit --data VIDEOS --out {path}")
    audit = read_json(path)
    rows = [[*name.split(": ", 1), *(_scored(heads[head]) for head in _HEADS)] for name, heads in audit["rows"].items()]
    chance = next(iter(audit["rows"].values()))
    rows.append(["", "chance", *(f"{chance[head]['chance']:.1%}" for head in _HEADS)])
    conclusions = "".join(f" {sentence}" for sentence in audit["conclusions"])
    return f"{audit['title']}.{conclusions}\n\n{markdown(['clips', 'cue', *_HEADS], rows)}"


def _scored(score: Result) -> str:
    return f"{100 * score['accuracy']:.1f} ± {100 * score['standard_error']:.1f} %"


def draw_curves(groups: Mapping[Group, Sequence[StudyRun]], charts: Path) -> str:
    """Draw the learning curves of both heads for the rows of each network as SVG files; returns Markdown to show them.

    A line is the mean over the seeds, up to the last epoch that all of them have finished.
    """
    shown = []
    for network in dict.fromkeys(network for network, _ in groups):
        for head in _HEADS:
            series = {
                row: curve
                for (name, row), runs in groups.items()
                if name == network and _has_head(row, head) and (curve := _curve(runs, head))
            }
            if series:
                title = f"{network}: accuracy of the {head} head on held-out training videos"
                file = charts / f"{network}-{head}.svg"
                write_page(file, line_chart(series, title=title, x_label="epoch", y_label="accuracy") + "\n")
                shown.append(f"![{title}]({file.name})")
    if not shown:
        raise ValueError("no run of the study has finished an epoch yet")
    return "\n\n".join(shown)


def _has_head(row: str, head: str) -> bool:
    return row not in TASKS or len(getattr(TASKS[row], head)) > 1


def _curve(runs: Sequence[StudyRun], head: str) -> list[tuple[float, float]]:
    logs = [read_metrics(run.folder / METRICS) for run in runs if (run.folder / METRICS).is_file()]
    epochs = zip(*logs, strict=False) if logs else ()
    return [
        (lines[0]["epoch"], statistics.fmean(line["validation"][f"accuracy_{head}"] for line in lines))
        for lines in epochs
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="folder of runs, as benchmarks/study.py makes it")
    parser.add_argument("table", choices=TABLE_NAMES)
    parser.add_argument("--charts", type=Path, default=Path(), help="folder for the SVG files of the curves")
    arguments = parser.parse_args()
    print(study_table(arguments.study, arguments.table, arguments.charts))


if __name__ == "__main__":
    main()
