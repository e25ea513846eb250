"""The gain over random weights against the clips that a run has seen: a table and a figure.

    python -m benchmarks.study_gain STUDY [STUDY ...] --charts FOLDER

Each study (see :mod:`benchmarks.study`) is one budget. A run is compared with the random weights of its own study, or
of the first study that has them for its network: these have seen no clip, so they do not depend on the budget.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.study import RANDOM
from benchmarks.study_tables import (
    LAYOUTS,
    Group,
    Result,
    StudyRun,
    clips_seen,
    group_runs,
    lead_error,
    markdown,
)
from v3s.pages.charts import line_chart
from v3s.pages.templates import write_page
from v3s.train.run import METRICS

PROTOCOLS = {"recognition": "fine-tuning", "retrieval": "retrieval", "probe": "linear probe"}
"""Table of the study -> the name of the protocol; the first column of the table is what is compared."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What one row gains with one budget.

    Attributes:
        network: name of the network.
        row: name of the row.
        clips: training clips that each of its runs has seen, the mean over the seeds.
        leads: name of the protocol -> lead over random weights and its standard error (None if the files do not say),
            as shares.
        num_seeds: number of runs.
    """

    network: str
    row: str
    clips: float
    leads: Mapping[str, tuple[float, float | None]]
    num_seeds: int


def gains(studies: Sequence[Path]) -> list[Gain]:
    """The gains of all trained rows of some studies, by network, row and number of clips.

    Raises:
        ValueError: a folder is no study, or no run can be compared with random weights.
    """
    grouped = [group_runs(study) for study in studies]
    found = []
    for groups in grouped:
        for (network, row), runs in groups.items():
            trained = [run for run in runs if (run.folder / METRICS).is_file()]
            baselines = [baseline for own in (groups, *grouped) if (baseline := own.get((network, RANDOM)))]
            if trained and baselines:
                leads = {name: lead for table, name in PROTOCOLS.items() if (lead := _lead(table, trained, baselines))}
                clips = statistics.fmean(map(clips_seen, trained))
                found += [Gain(network, row, clips, leads, len(trained))] if leads else []
    if not found:
        raise ValueError(f"no trained run can be compared with random weights in {', '.join(map(str, studies))}")
    return sorted(found, key=lambda gain: (gain.network, gain.row, gain.clips))


def _lead(
    table: str, trained: Sequence[StudyRun], baselines: Sequence[Sequence[StudyRun]]
) -> tuple[float, float | None] | None:
    """The lead in the first column of a table, if both rows have results; and its error."""
    layout = LAYOUTS[table]
    ours = _results(trained, layout.file)
    random = next((results for runs in baselines if (results := _results(runs, layout.file))), [])
    if not ours or not random:
        return None
    look_up = next(iter(layout.columns.values()))
    lead = statistics.fmean(map(look_up, ours)) - statistics.fmean(map(look_up, random))
    return lead, lead_error(layout, ours, random)


def _results(runs: Sequence[StudyRun], file: str) -> list[Result]:
    return [result for run in runs if (result := run.result(file)) is not None]


def gain_table(found: Sequence[Gain]) -> str:
    """The gains in points, with their errors over groups of videos and over seeds, as Markdown."""
    rows = [
        [gain.network, gain.row, f"{gain.clips:,.0f}"]
        + [_points(gain.leads.get(name)) for name in PROTOCOLS.values()]
        + [str(gain.num_seeds)]
        for gain in found
    ]
    return markdown(["network", "row", "clips seen", *PROTOCOLS.values(), "seeds"], rows)


def _points(lead: tuple[float, float | None] | None) -> str:
    if lead is None:
        return ""
    points, error = lead
    return f"{100 * points:+.1f}" if error is None else f"{100 * points:+.1f} ± {100 * error:.1f}"


def draw_gains(found: Sequence[Gain], charts: Path) -> list[Path]:
    """Draw the gain of each protocol against thousands of clips, a line for each network and row; returns the files."""
    files = []
    for name in PROTOCOLS.values():
        curves: dict[Group, list[tuple[float, float]]] = {}
        for gain in found:
            if name in gain.leads:
                point = gain.clips / 1000, 100 * gain.leads[name][0]
                curves.setdefault((gain.network, gain.row), [(0.0, 0.0)]).append(point)
        if curves:
            drawn = {f"{network} {row}": points for (network, row), points in curves.items()}
            chart = line_chart(
                drawn, title=f"{name}: gain over random weights", x_label="clips seen (thousands)", y_label="points"
            )
            files.append(charts / f"gain-{name.replace(' ', '-')}.svg")
            write_page(files[-1], chart + "\n")
    return files


def main() -> None:
    """Print the table, and draw the figure if a folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of runs, as benchmarks/study.py makes them")
    parser.add_argument("--charts", type=Path, help="folder for the SVG files")
    arguments = parser.parse_args()
    found = gains(arguments.studies)
    print(gain_table(found))
    for file in draw_gains(found, arguments.charts) if arguments.charts else ():
        print(f"![{file.stem}]({file.name})")


if __name__ == "__main__":
    main()
