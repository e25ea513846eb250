"""videos.jsonl, which is in the folder of a run: the videos that are used, and what identifies their contents."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from v3s.data.index_table import IndexTable, content_of
from v3s.files.reading import checked, lines_of, parse_json, read_text
from v3s.files.text import counted
from v3s.files.writing import write_whole

CONTENTS = "videos.jsonl"
_NUM_NAMED = 5


def contents_of(paths: Iterable[str], table: IndexTable) -> dict[str, str]:
    """What identifies the content of each video of a table, by path."""
    return dict(zip(paths, map(content_of, table), strict=True))


def write_contents(run: Path, videos: Mapping[str, str]) -> None:
    """Write what `contents_of` gives."""
    lines = "".join(json.dumps([path, content]) + "\n" for path, content in videos.items())
    write_whole(run / CONTENTS, lines.encode())


def read_contents(run: Path) -> dict[str, str] | None:
    """Return what `contents_of` gave for a run's videos; None for runs of earlier versions, which did not record it.

    Raises:
        ValueError: the file is damaged.
    """
    if not (run / CONTENTS).is_file():
        return None
    try:
        lines = lines_of(read_text(run / CONTENTS))
        found: dict[str, str] = dict(checked(tuple[str, str], parse_json(line), "the line") for line in lines)
        if not found:
            raise ValueError("it is empty")
        return found
    except ValueError as error:
        raise ValueError(
            f"{run / CONTENTS} is damaged ({error}); restore it, or train again with another --out"
        ) from error


def check_contents(run: Path, videos: Mapping[str, str]) -> None:
    """Refuse to resume a run after the contents of its videos changed.

    Raises:
        ValueError: they changed; the message names the first ones. Or videos.jsonl is damaged.
    """
    before = read_contents(run)
    if before is None:
        return
    changed = [path for path in before | dict(videos) if before.get(path) != videos.get(path)]
    if changed:
        more = f" and {len(changed) - _NUM_NAMED:,} more" if len(changed) > _NUM_NAMED else ""
        raise ValueError(
            f"{run} cannot be resumed: the contents of {counted(len(changed), 'video')} changed since the run started: "
            f"{', '.join(changed[:_NUM_NAMED])}{more}; restore them, or start a new run with another --out"
        )


def seen_sentence(run: Path, table: IndexTable, noun: str) -> str | None:
    """Say how many videos of a table a run was trained or validated on, by content; None if there are none.

    Args:
        run: folder of the run.
        table: the videos on which its heads are asked.
        noun: what they are: "video" or "span".

    Raises:
        ValueError: videos.jsonl is damaged.
    """
    known = set((read_contents(run) or {}).values())
    num_seen = sum(content_of(video) in known for video in table)
    if not num_seen:
        return None
    return (
        f"the run {run} was trained or validated on {num_seen:,} of the {counted(len(table), noun)}, so accuracies "
        "on other videos may be lower; give videos that it has not seen (of lists, and of folders train and test: "
        "--subset test)"
    )
