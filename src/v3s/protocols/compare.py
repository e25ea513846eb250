"""``v3s compare``: backbones side by side on the same labelled videos; the answer to "should I train my own?".

Every row is what ``v3s probe`` and ``v3s retrieve --pool mean`` measure with this backbone: one pass over the videos
gives the vectors of all columns. A row that is done is kept in a file named by what it depends on (weights, clips,
videos, labels, seed), so a comparison that was stopped, or to which a backbone is added, computes only what is missing.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from v3s.data.index_table import IndexTable
from v3s.data.views import View
from v3s.features.encoder import LAST, Encoder, Feature, open_encoder
from v3s.features.hub import HUGGING_FACE
from v3s.features.source import RANDOM, ClipCountOptions
from v3s.files.lock import only_writer
from v3s.files.own import require_own
from v3s.files.reading import read_as, read_json
from v3s.files.text import counted, print_table, say, text_table
from v3s.files.writing import json_as_bytes, write_files, write_json
from v3s.options import require_folders
from v3s.protocols.comparison.page import (
    NUM_LABELS,
    comparison_markdown,
    comparison_page,
    conclusion,
    header,
    table_rows,
)
from v3s.protocols.comparison.rows import MEASURES, Compared, Comparison
from v3s.protocols.labelled import LabelledOptions, labelled_parts
from v3s.protocols.labelled.features import encode_parts
from v3s.protocols.labelled.parts import Parts, keep_division
from v3s.protocols.probe import ProbeConfig, run_probes
from v3s.protocols.retrieve import rank, score
from v3s.video.light.mask import mask_text

_FORMAT = 1  # increase it if a row is computed differently
_ROWS, _SPLIT, _NAME = "rows", "split", "compare"


@dataclass(frozen=True, kw_only=True)
class CompareConfig(ClipCountOptions, LabelledOptions):
    """Compare backbones on the same labelled videos: random weights, own runs, converted and foundation models.

    Attributes:
        backbones: What --backbone takes: runs, what v3s convert wrote, random:NAME[@WIDTH], hf:NAME. Random weights are
            always among them: if none are given, those of the first network of v3s.
        out: Folder for compare.html, compare.md and compare.json, and for the lists of videos that were divided here.
            Backbones that are done there are not computed again.
    """

    data: Annotated[str, "DATA"] = field()
    backbones: tuple[str, ...]
    out: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require_folders(self, "out")
        if not self.backbones or not all(self.backbones):
            raise ValueError("backbones is empty, or one of them is; give at least one")
        if twice := [name for name in self.backbones if self.backbones.count(name) > 1]:
            raise ValueError(f"backbones contains {twice[0]!r} twice; give each once")


def compare(config: CompareConfig, *, console: Console | None = None) -> Comparison:
    """Compare backbones by linear probe, neighbours, few labels and retrieval, and by what they cost.

    All backbones are opened before the first is computed, so that a wrong name fails at once.

    Args:
        config: which backbones, which videos, which folder.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the folder contains something else, a backbone does not exist or is given twice by two names, a
            part of the videos is empty or has no labels, or a network's output contains NaN or infinity.
    """
    console, folder = console or Console(), Path(config.out)
    names = _with_random(config.backbones)
    with only_writer(folder):
        require_own(folder / f"{_NAME}.json", _ROWS, _SPLIT, command="v3s compare")
        _check_different(config, sorted(names, key=lambda name: name not in config.backbones))  # what was given, first
        measured = [_measure(config, name, folder, console, is_first=name == names[0]) for name in names]
        parts, rows = measured[0][0], tuple(row for _, row in measured)
        for name, (other, _) in zip(names, measured, strict=True):
            if (other.test_paths, other.train_paths) != (parts.test_paths, parts.train_paths):
                raise ValueError(f"the readable videos changed before {name} was compared; run v3s compare again")
        keep_division(parts, folder / _SPLIT, console)
        found = Comparison(
            rows=rows,
            classes=parts.classes,
            num_train=len(parts.train_labels),
            test_groups=tuple(parts.test_groups.tolist()),
            chance=parts.chance,
            majority=parts.majority,
            train_source=parts.train_source,
            test_source=parts.test_source,
            num_clips=config.clips_per_video,
        )
        write_files(
            {
                folder / f"{_NAME}.json": json_as_bytes(_description(config, found, parts)),  # first: it marks the rest
                folder / f"{_NAME}.html": comparison_page(found).encode(),
                folder / f"{_NAME}.md": comparison_markdown(found).encode(),
            }
        )
    title = f"{counted(len(found.test_groups), 'test video')}, {counted(found.num_train, 'training video')}"
    print_table(console, text_table(title, header(found), table_rows(found)))
    say(console, *conclusion(found), str(folder / f"{_NAME}.html"))
    return found


def _with_random(backbones: Sequence[str]) -> tuple[str, ...]:
    """The backbones to compare, random weights among them."""
    if any(name.startswith(RANDOM) for name in backbones):
        return tuple(backbones)
    own = next((name for name in backbones if not name.startswith(HUGGING_FACE)), "r3d")
    return (f"{RANDOM}{own}", *backbones)


def _options(config: CompareConfig, backbone: str) -> ProbeConfig:
    """What ``v3s probe`` of one backbone would be given."""
    own = {field.name for field in fields(config)}
    values = {field.name: getattr(config, field.name) for field in fields(ProbeConfig) if field.name in own - {"out"}}
    return ProbeConfig(**values, backbone=backbone, few_labels=(NUM_LABELS,))


def _open(config: CompareConfig, backbone: str) -> Encoder:
    return open_encoder(_options(config, backbone), [Feature(LAST, "mean")])


def _check_different(config: CompareConfig, names: Sequence[str]) -> None:
    """Open each backbone once, before the long work.

    Raises:
        ValueError: one cannot be opened, or two are the same.
    """
    seen: dict[str, str] = {}
    for name in names:
        fingerprint = _open(config, name).fingerprint
        if fingerprint in seen:
            raise ValueError(f"{seen[fingerprint]} and {name} are the same network with the same clips; give it once")
        seen[fingerprint] = name


def _measure(
    config: CompareConfig, name: str, folder: Path, console: Console, *, is_first: bool
) -> tuple[Parts, Compared]:
    """Return the videos, on which only the first backbone reports, and the row of a backbone."""
    options, encoder = _options(config, name), _open(config, name)
    on_videos = console if is_first else Console(quiet=True)
    parts = labelled_parts(
        options, seed=config.seed, workers=config.workers, console=on_videos, divides=True, view=encoder.view
    )
    file = folder / _ROWS / f"{_key(encoder, parts, config.seed)}.json"
    if file.exists():
        try:
            row = read_as(Compared, read_json(file), file)
            row.check_videos(len(parts.test_labels))
            row.check_network(encoder.source, encoder.dimension)
            say(console, f"{name}: is done ({file})")
            return parts, row.called(name)
        except ValueError as error:
            say(console, f"{name}: computed again: {error}")
    say(console, f"{name}: {encoder.source.network}, clips of {_clips_text(encoder.view)}")
    row = _compute(options, encoder, parts, console)
    write_json(file, asdict(row))
    return parts, row


def _compute(options: ProbeConfig, encoder: Encoder, parts: Parts, console: Console) -> Compared:
    started = time.monotonic()
    vectors = encode_parts(encoder, parts, console)
    train, test = vectors.train, vectors.test
    seconds = time.monotonic() - started
    probed = run_probes(train, test, parts, options, started=started, console=console)
    few = next(iter(probed.few_labels), None)
    ranked = rank(test, train, len(train))
    found = score(
        parts.test_labels, parts.train_labels, ranked.indices, groups=parts.test_groups, dimension=train.shape[1]
    )
    source = encoder.source
    return Compared(
        backbone=source.name,
        origin=source.origin,
        network=source.network,
        fingerprint=source.fingerprint,
        clips=_clips_text(encoder.view),
        dimension=train.shape[1],
        num_parameters=source.num_parameters,
        licence=source.licence,
        clips_per_second=options.clips_per_video * (len(train) + len(test)) / seconds,
        linear=probed.linear.hits,
        neighbours=probed.neighbours.hits,
        k=probed.k,
        retrieval=found.hits,
        few_labels=few.mean if few else None,
        few_labels_error=few.standard_error if few else None,
    )


def _clips_text(view: View) -> str:
    """What a clip is, in words."""
    rate = "" if view.fps is None else f" at {view.fps:g} per second"
    window = "" if view.window is None else f", window {view.window}"
    mask = "" if view.mask is None else f", mask {mask_text(view.mask)}"
    return f"{view.clip_frames} frames{rate} of {view.clip_size} x {view.clip_size} pixels{window}{mask}"


def _key(encoder: Encoder, parts: Parts, seed: int) -> str:
    """Identify what a row depends on."""
    tables: list[IndexTable] = list(parts.tables.values())
    values = {
        "format": _FORMAT,
        "space": encoder.fingerprint,
        "videos": [table.fingerprints.tolist() for table in tables],
        "spans": [table.spans and [table.spans.starts.tolist(), table.spans.ends.tolist()] for table in tables],
        "labels": [parts.train_labels.tolist(), parts.test_labels.tolist()],
        "groups": None if parts.train_groups is None else parts.train_groups.tolist(),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _description(config: CompareConfig, found: Comparison, parts: Parts) -> dict[str, Any]:
    """The comparison as JSON: every number of the page, and what each backbone got right."""
    rows = []
    for row in found.rows:
        shares = {measure: asdict(found.share(row, measure)) for measure in MEASURES}
        beyond = {measure: asdict(found.difference(row, found.random, measure)) for measure in MEASURES}
        rows.append({**asdict(row), "shares": shares, "beyond_random": beyond})
    described = {**asdict(found), **parts.to_json(), "seed": config.seed, "answer": conclusion(found)}
    return {**described, "random": found.random.backbone, "rows": rows}
