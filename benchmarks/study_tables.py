"""The tables of a study as Markdown: ``python -m benchmarks.study_tables STUDY TABLE [--charts FOLDER]``.

They are made from its runs' own files. A study is a folder of runs ``<network>-<row>-<seed>``: each a run of
``v3s pretrain`` (for the row ``random`` only a folder), with what its network was asked beside it: retrieve.json,
probe.json, evaluate.json, audit.json, similarity.json and finetune/result.json.
"""

import argparse
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v3s.commands.paper_tables import TABLES
from v3s.commands.pretrain import PretrainConfig
from v3s.files.writing import read_json
from v3s.pages.charts import line_chart
from v3s.pages.page import write_page
from v3s.pretext.task import TASKS
from v3s.train.run import MANIFEST, METRICS, config_of_run, read_metrics

Result = Mapping[str, Any]
Group = tuple[str, str]
"""Network and row."""

RANDOM = "random"
ORDER = (RANDOM, "ss", "sp", "ss+sp", "ts", "tp", "ts+tp", "v3s")


def _paper(*tables: str) -> dict[Group, float]:
    """Top-1 accuracy in percent on the whole of UCF101, split 1, that tables of the paper give each network and row."""
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
        """What a protocol wrote, or None before it has."""
        path = self.folder / file
        return read_json(path) if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Layout:
    """How a protocol's files become a table.

    Attributes:
        file: what the protocol writes into a run's folder.
        columns: how to find the share in [0, 1] that each column shows; NaN where there is nothing to show.
        chance: the same for a last line, or None.
        paper: the paper's number in percent beside the first column.
        asks_heads: whether the protocol asks the heads of pre-training, which random weights do not have.
    """

    file: str
    columns: dict[str, Callable[[Result], float]]
    chance: dict[str, Callable[[Result], float]] | None = None
    paper: Mapping[Group, float] | None = None
    asks_heads: bool = False


def _at(*path: str) -> Callable[[Result], float]:
    def look_up(found: Result) -> float:
        value: Any = found
        for key in path:
            value = value[key]
        return float(value)

    return look_up


def _of_head(value: str, *path: str) -> Callable[[Result], float]:
    """What a head scored; nothing for a head of one label, which has nothing to tell apart."""
    look_up, chance = _at(*path, value), _at(*path, "chance")
    return lambda found: look_up(found) if chance(found) < 1 else math.nan


def _few(per_class: int) -> Callable[[Result], float]:
    return lambda found: next((run["mean"] for run in found["few_labels"] if run["per_class"] == per_class), math.nan)


_HEADS = ("spatial", "temporal")
_STIMULI = ("video", "frozen", "shuffled", "still noise", "moving noise")
LAYOUTS = {
    "retrieval": Layout(
        "retrieve.json",
        {f"top {k}": _at("accuracy", str(k)) for k in (1, 5, 10, 20, 50)} | {"mAP": _at("mean_average_precision")},
        {f"top {k}": _at("chance", str(k)) for k in (1, 5, 10, 20, 50)} | {"mAP": _at("chance_precision")},
        PAPER_RETRIEVAL,
    ),
    "probe": Layout(
        "probe.json",
        {"linear": _at("linear", "top_1"), "neighbours": _at("neighbours", "top_1")}
        | {f"linear, {number} a class": _few(number) for number in (1, 5, 10)}
        | {"shuffled labels": _at("shuffled", "top_1")},
        {"linear": _at("chance"), "neighbours": _at("chance")},
    ),
    "recognition": Layout(
        "finetune/result.json",
        {"top 1": _at("top_1"), "top 5": _at("top_5")},
        {"top 1": _at("chance")},
        PAPER_RECOGNITION,
    ),
    "similarity": Layout("similarity.json", {"accuracy": _at("result", "mean")}, {"accuracy": _at("chance")}),
    "pretext": Layout(
        "evaluate.json",
        {
            f"{head}{text}": _of_head(key, head)
            for head in _HEADS
            for text, key in (("", "accuracy"), (" chance", "chance"))
        },
        asks_heads=True,
    ),
    **{
        f"audit-{head}": Layout(
            "audit.json",
            {name: _of_head("accuracy", "rows", name, head) for name in _STIMULI}
            | {"chance": _of_head("chance", "rows", "video", head)},
            asks_heads=True,
        )
        for head in _HEADS
    },
}  # fmt: skip
TABLE_NAMES = ("budget", *LAYOUTS, "pixels", "curves")


def study_table(study: Path, table: str, charts: Path = Path()) -> str:
    """One table of a study as Markdown.

    Args:
        study: the folder of its runs.
        table: one of `TABLE_NAMES`; "curves" draws how both heads learned.
        charts: the folder for the SVG files of the curves.

    Raises:
        ValueError: the folder holds no runs, or none has what the table shows.
    """
    if table == "pixels":
        return pixels_table(study)
    if table == "budget":
        return budget_table(group_runs(study))
    if table == "curves":
        return draw_curves(group_runs(study), charts)
    return layout_table(group_runs(study), LAYOUTS[table])


def group_runs(study: Path) -> dict[Group, list[StudyRun]]:
    """The runs of a study by network and row, in the paper's order; those of a group differ by their seed.

    Raises:
        ValueError: there are none.
    """
    groups: dict[Group, list[StudyRun]] = {}
    for folder in sorted(study.iterdir()) if study.is_dir() else ():
        named = re.fullmatch(r"([^-]+)-(.+)-(\d+)", folder.name)
        if named and folder.is_dir():
            run = StudyRun(folder, named[1], named[2], int(named[3]))
            groups.setdefault((run.network, run.row), []).append(run)
    if not groups:
        raise ValueError(f"{study} holds no runs: folders <network>-<row>-<seed>, as benchmarks/study.py makes them")
    return dict(sorted(groups.items(), key=lambda item: _place(item[0])))


def _place(group: Group) -> tuple[str, int, str]:
    network, row = group
    return network, ORDER.index(row) if row in ORDER else len(ORDER), row


def layout_table(groups: Mapping[Group, Sequence[StudyRun]], layout: Layout) -> str:
    """Mean and spread over the seeds of each group, the lead over random weights, and the paper's number.

    Raises:
        ValueError: no run has the file that the table is made from.
    """
    found = {group: [result for run in runs if (result := run.result(layout.file))] for group, runs in groups.items()}
    found = {group: given for group, given in found.items() if given}
    if not found:
        raise ValueError(f"no run of the study has {layout.file} yet")
    first = next(iter(layout.columns))
    compared = any(row == RANDOM for _, row in found)
    header = ["network", "row", *layout.columns, *(["over random"] if compared else [])]
    header += [*(["paper (all of UCF101)"] if layout.paper else []), "seeds"]
    rows = []
    for (network, row), given in found.items():
        cells = [
            spread([look_up(result) for result in (given[:1] if name.endswith("chance") else given)])
            for name, look_up in layout.columns.items()
        ]
        if compared:
            cells.append(_lead(layout.columns[first], given, found.get((network, RANDOM)), row))
        if layout.paper:
            cells.append(f"{layout.paper[network, row]:.1f}" if (network, row) in layout.paper else "")
        rows.append([network, row, *cells, str(len(given))])
    if layout.chance:
        any_result = next(iter(found.values()))[0]
        cells = [f"{layout.chance[name](any_result):.1%}" if name in layout.chance else "" for name in layout.columns]
        rows.append(["", "chance", *cells, *[""] * (len(header) - 2 - len(cells))])
    missing = [
        run.folder.name
        for runs in groups.values()
        for run in runs
        if run.result(layout.file) is None and not (layout.asks_heads and run.row == RANDOM)
    ]
    note = f"\n\nWithout {layout.file} so far: {', '.join(missing)}." if missing else ""
    return markdown(header, rows) + note


def spread(shares: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds, in percent; the mean alone of a single one; a dash for NaN."""
    if any(map(math.isnan, shares)):
        return "-"
    mean = f"{100 * statistics.fmean(shares):.1f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.1f} %" if len(shares) > 1 else f"{mean} %"


def _lead(
    look_up: Callable[[Result], float], given: Sequence[Result], random: Sequence[Result] | None, row: str
) -> str:
    if random is None or row == RANDOM:
        return ""
    return f"{100 * (statistics.fmean(map(look_up, given)) - statistics.fmean(map(look_up, random))):+.1f}"


def budget_table(groups: Mapping[Group, Sequence[StudyRun]]) -> str:
    """How each group was trained: all values where its runs differ, and the mean of their minutes."""
    header = ["network", "row", "width", "clip", "epochs", "batch", "rate", "videos", "clips seen", "minutes", "seeds"]
    rows = []
    for (network, row), runs in groups.items():
        trained = [_budget(run) for run in runs if (run.folder / METRICS).is_file()]
        if trained:
            cells = [", ".join(dict.fromkeys(values)) for values in zip(*trained, strict=True)]
            minutes = statistics.fmean(_minutes(run) for run in runs if (run.folder / METRICS).is_file())
            rows.append([network, row, *cells, f"{minutes:.1f}", ", ".join(str(run.seed) for run in runs)])
    if not rows:
        raise ValueError("no run of the study has ended an epoch yet")
    return markdown(header, rows)


def _budget(run: StudyRun) -> list[str]:
    config = config_of_run(PretrainConfig, run.folder)
    lines, num_videos = read_metrics(run.folder / METRICS), read_json(run.folder / MANIFEST)["videos"]["train"]
    described = read_json(run.folder / "config.json")["sampling"]
    steps = max(1, num_videos * config.train_clips // config.batch_size)
    epochs = f"{len(lines)}" if len(lines) >= config.epochs else f"{len(lines)} of {config.epochs}"
    clip = f"{described['clip_frames']}x{described['clip_size']}x{described['clip_size']}"
    clips_seen = len(lines) * steps * min(config.batch_size, num_videos * config.train_clips)
    numbers = [f"{config.width:g}", clip, epochs, str(config.batch_size), f"{config.initial_rate:g}"]
    return [*numbers, f"{num_videos:,}", f"{clips_seen:,}"]


def _minutes(run: StudyRun) -> float:
    """Of training, without validation."""
    return math.fsum(line["seconds"] for line in read_metrics(run.folder / METRICS)) / 60


def pixels_table(study: Path) -> str:
    """What a linear probe reads from a few numbers of a clip, by setting and cue."""
    path = study / "pixels.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: v3s audit --data VIDEOS --out {path} makes it")
    found = read_json(path)
    rows = [[*name.split(": ", 1), *(_scored(heads[head]) for head in _HEADS)] for name, heads in found["rows"].items()]
    chance = next(iter(found["rows"].values()))
    rows.append(["", "chance", *(f"{chance[head]['chance']:.1%}" for head in _HEADS)])
    told = "".join(f" {sentence}" for sentence in found["conclusions"])
    return f"{found['title']}.{told}\n\n{markdown(['clips', 'cue', *_HEADS], rows)}"


def _scored(score: Result) -> str:
    return f"{100 * score['accuracy']:.1f} ± {100 * score['standard_error']:.1f} %"


def draw_curves(groups: Mapping[Group, Sequence[StudyRun]], charts: Path) -> str:
    """Draw how both heads of each network's rows learned, as SVG files; returns Markdown that shows them.

    A line is the mean over the seeds, as far as all of them have come.
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
        raise ValueError("no run of the study has ended an epoch yet")
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
    given = parser.parse_args()
    print(study_table(given.study, given.table, given.charts))


if __name__ == "__main__":
    main()
