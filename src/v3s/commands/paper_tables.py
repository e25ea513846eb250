"""The numbers that the paper reports, as data: Tables 1 to 6 without the methods of others."""

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["finetune", "retrieve", "similarity"]
Dataset = Literal["ucf101", "hmdb51", "aslan"]
Trial = tuple[Protocol, Dataset]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: a network, its pretext task (None: random weights) and the paper's scores in percent."""

    name: str
    backbone: str
    task: str | None
    paper: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of the paper: the protocols and datasets of its columns, and its rows."""

    title: str
    trials: tuple[Trial, ...]
    rows: tuple[Row, ...]


def _tasks(**scores: float) -> tuple[Row, ...]:
    return tuple(Row(name, "r2plus1d", name, (score,)) for name, score in scores.items())


TABLES: dict[str, PaperTable] = {
    "table1": PaperTable(
        "parameters of the transforms, R(2+1)D",
        (("finetune", "ucf101"),),
        _tasks(
            **{"ss-1.45": 73.2, "ss-1.9": 71.1, "ss-2.35": 72.8, "sp-0.7": 73.5, "sp-0.6": 73.6, "sp-0.5": 73.7},
            **{"ts-2": 71.0, "ts-3": 76.4, "ts-4": 76.3, "tp-4": 75.0, "tp-6": 76.8, "tp-8": 77.0},
        ),
    ),
    "table2": PaperTable(
        "action recognition (rows pre-trained on Kinetics-400 are not run)",
        (("finetune", "ucf101"), ("finetune", "hmdb51")),
        (
            Row("C3D, random", "c3d", None, (63.7, 24.7)),
            Row("C3D, V3S", "c3d", "v3s", (74.8, 34.9)),
            Row("R3D, random", "r3d", None, (54.5, 23.4)),
            Row("R3D, V3S", "r3d", "v3s", (74.0, 38.0)),
            Row("R(2+1)D, random", "r2plus1d", None, (55.8, 22.0)),
            Row("R(2+1)D, V3S", "r2plus1d", "v3s", (79.1, 38.7)),
            Row("S3D-G, V3S", "s3dg", "v3s", (85.4, 53.2)),
        ),
    ),
    "table3": PaperTable(
        "combinations of the transforms, R(2+1)D",
        (("finetune", "ucf101"),),
        _tasks(
            **{"ss": 73.2, "sp": 73.7, "ss+sp": 73.8, "ts": 76.4, "tp": 77.0, "ts+tp": 78.0, "v3s": 79.1},
        ),
    ),
    "table4": PaperTable(
        "video retrieval on UCF101 (rows pre-trained on Kinetics-400 are not run)",
        (("retrieve", "ucf101"),),
        (
            Row("C3D, random", "c3d", None, (16.7, 27.5, 33.7, 41.4, 53.0)),
            Row("C3D, V3S", "c3d", "v3s", (21.8, 39.0, 47.7, 57.0, 69.2)),
            Row("R3D, random", "r3d", None, (9.9, 18.9, 26.0, 35.5, 51.9)),
            Row("R3D, V3S", "r3d", "v3s", (28.3, 43.7, 51.3, 60.1, 71.9)),
            Row("R(2+1)D, random", "r2plus1d", None, (10.6, 20.7, 27.4, 37.4, 53.1)),
            Row("R(2+1)D, V3S", "r2plus1d", "v3s", (23.1, 40.5, 48.7, 58.5, 72.4)),
            Row("S3D-G, V3S", "s3dg", "v3s", (16.6, 32.2, 41.8, 52.3, 68.0)),
        ),
    ),
    "table5": PaperTable(
        "video retrieval on HMDB51 (the row pre-trained on Kinetics-400 is not run)",
        (("retrieve", "hmdb51"),),
        (
            Row("C3D, random", "c3d", None, (7.4, 20.5, 31.9, 44.5, 66.3)),
            Row("C3D, V3S", "c3d", "v3s", (11.1, 26.5, 38.0, 52.0, 73.0)),
            Row("R3D, random", "r3d", None, (6.7, 18.3, 28.3, 43.1, 67.9)),
            Row("R3D, V3S", "r3d", "v3s", (10.8, 30.6, 42.3, 56.2, 77.1)),
            Row("R(2+1)D, random", "r2plus1d", None, (4.5, 14.8, 23.4, 38.9, 63.0)),
            Row("R(2+1)D, V3S", "r2plus1d", "v3s", (9.6, 24.0, 37.2, 54.3, 77.9)),
        ),
    ),
    "table6": PaperTable(
        "action similarity on ASLAN", (("similarity", "aslan"),), (Row("R3D, V3S", "r3d", "v3s", (65.4,)),)
    ),
}
"""All rows were pre-trained on UCF101, split 1. Retrieval has five scores: top 1, 5, 10, 20 and 50."""

PAPER_VIDEOS = {
    "ucf101": "9,537 training and 3,783 test videos in 101 classes",
    "hmdb51": "3,570 training and 1,530 test videos in 51 classes",
    "aslan": "6,000 pairs of 3,631 videos",
}
