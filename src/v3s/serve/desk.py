"""What all windows of a server share: the spans, the labels, the previews, and what was computed of them."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v3s.features.encoder import Encoder
from v3s.files.text import as_text
from v3s.files.times import time_text
from v3s.serve.catalogue import Catalogue
from v3s.serve.decoders import Previews
from v3s.serve.filters import Chosen, Filters, check_choice, chosen_by, inside_lasso, number_in, whole_in
from v3s.serve.learning import ProbeAnswers, doubt, train_probe
from v3s.serve.marks import Marks
from v3s.serve.orders import AS_LISTED, Order, order_by_similarity, page_of, rows_in
from v3s.serve.previews import Preview, file_state
from v3s.serve.survey import Survey
from v3s.vectors.collection import Vectors
from v3s.vectors.description import VECTORS, read_description
from v3s.vectors.query import encode_query

_ORDERS = "listed, like:SPAN, stretch:SPAN:START:END, outliers, suggested:NUMBER, answer:CLASS and unsure"
_MAX_ORDERS = 8  # that are kept; one of a million spans has 4 MB


class Desk:
    """The work on one collection.

    Args:
        catalogue: its spans.
        marks: the labels that are given in the page.
        previews: makes pictures and clips.
        open_encoder: opens the network of the collection; called when a stretch is searched with for the first time.
    """

    def __init__(
        self, catalogue: Catalogue, marks: Marks, previews: Previews, open_encoder: Callable[[], Encoder]
    ) -> None:
        self.catalogue, self.marks, self.previews = catalogue, marks, previews
        self.vectors = catalogue.vectors
        self.survey = Survey(catalogue)
        self.answers: ProbeAnswers | None = None
        self._open_encoder = open_encoder
        self._encoder: Encoder | None = None
        self._orders: OrderedDict[str, Order] = OrderedDict()
        self._lock = threading.Lock()  # of the orders
        self._computing = threading.Lock()  # one network, one probe at a time

    @property
    def notice(self) -> str:
        """What the page has to say by itself: of the labels, and that the folder has other vectors now; else empty."""
        stale = "the vectors on the disk have changed, and this page shows the earlier ones; start v3s serve again"
        return "; ".join(filter(None, (self.marks.notice, stale if _has_other_vectors(self.vectors) else "")))

    def page(self, order_name: str, filters: Filters, offset: int, limit: int) -> dict[str, Any]:
        """Some of the spans that pass filters, in an order, as plain values.

        Raises:
            ValueError: there is no such order, or a stretch cannot be searched with.
        """
        order = self.order(order_name)
        chosen = self.chosen(filters)
        if filters.other_files and order.row is not None:
            chosen &= self.catalogue.file_of != self.catalogue.file_of[order.row]
        rows = rows_in(order, chosen)
        shown = page_of(self.vectors, order, rows, offset, limit)
        spans = [
            {**self.describe(row), "score": round(score, 4) if score is not None and order.shows_scores else None}
            for row, score in shown
        ]
        return {"caption": order.caption, "num_chosen": len(rows), "spans": spans}

    def chosen(self, filters: Filters) -> Chosen:
        """The spans that pass filters.

        Raises:
            ValueError: the filters name something that does not exist.
        """
        chosen = chosen_by(filters, self.catalogue, self.marks.class_of, self.marks.classes)
        if filters.cluster is not None:
            clusters = self.survey.clusters()
            check_choice("cluster", filters.cluster, int(clusters.max(initial=-1)) + 1)
            chosen &= clusters == filters.cluster
        if filters.lasso:
            chosen &= inside_lasso(self.survey.points(filters.map), filters.lasso)
        return chosen

    def describe(self, row: int) -> dict[str, Any]:
        """A span as plain values; names are text.

        Raises:
            ValueError: there is no such span.
        """
        self.catalogue.check_row(row)
        place = self.vectors.place_of(row)
        described = {
            "row": row,
            "name": as_text(place.entry.path),
            "start": place.start_seconds,
            "end": place.end_seconds,
            "label": None if place.entry.label is None else as_text(place.entry.label),
            "mark": self.marks.label_of(row),
        }
        answers = self.answers  # another window may train meanwhile
        if answers is not None:
            best = int(answers.probabilities[row].argmax())
            share = float(answers.probabilities[row, best])
            described["answer"] = {"class": answers.classes[best], "probability": round(share, 3)}
        return described

    def preview(self, row: int, kind: str, *, width: int = 0, start: float = 0.0, end: float = 0.0) -> Preview:
        """What to ask for a picture or a clip of a span, or of a window around it.

        Raises:
            ValueError: there is no such span.
            VideoError: its file is no longer there.
        """
        self.catalogue.check_row(row)
        stored, place = self.vectors.description, self.vectors.place_of(row)
        state = file_state(stored.root, place.file)
        return Preview(stored.root, place, stored.space.view, kind, state, width, start, end)

    def order(self, name: str) -> Order:
        """An order by its name.

        ``listed``, ``like:ROW``, ``stretch:ROW:START:END``, ``outliers``, ``suggested:VERSION`` (the number of lines of
        the labels' file); and of the probe ``answer:NUMBER`` (that of a class) and ``unsure``.

        Raises:
            ValueError: there is no such order, or the stretch cannot be searched with.
        """
        with self._lock:
            if name in self._orders:
                self._orders.move_to_end(name)
                return self._orders[name]
        order = self._make_order(*name.split(":"))
        with self._lock:
            self._orders[name] = order
            if len(self._orders) > _MAX_ORDERS:
                self._orders.popitem(last=False)
        return order

    def _make_order(self, kind: str, *words: str) -> Order:
        if (kind, len(words)) == ("listed", 0):
            return AS_LISTED
        if (kind, len(words)) == ("like", 1):
            return self._order_like(whole_in(words[0], "the span"))
        if (kind, len(words)) == ("stretch", 3):
            start, end = number_in(words[1], "the stretch's start"), number_in(words[2], "the stretch's end")
            return self._order_like_stretch(whole_in(words[0], "the span"), start, end)
        if (kind, len(words)) == ("outliers", 0):
            return Order(self.survey.outliers(), "the least similar to any others first")
        if (kind, len(words)) == ("suggested", 1):
            scores = self.survey.to_label(np.flatnonzero(self.marks.class_of >= 0))
            return Order(scores, "to label next: all others are near to one of them", shows_scores=False)
        if (kind, len(words)) in (("answer", 1), ("unsure", 0)):
            return self._order_by_answer(kind, whole_in(words[0], "the class") if words else 0)
        raise ValueError(f"unknown order {':'.join((kind, *words))[:60]!r}; the orders are {_ORDERS}")

    def _order_like(self, row: int) -> Order:
        self.catalogue.check_row(row)
        query = self.vectors.take(torch.tensor([row]))
        if not query.any():
            raise ValueError("the vector of this span is zero (is it black?), and nothing is similar to it")
        return order_by_similarity(self.vectors, query, f"similar to {self._named(row)}", row)

    def _order_like_stretch(self, row: int, start: float, end: float) -> Order:
        self.catalogue.check_row(row)
        if not 0 <= start < end:
            raise ValueError(f"the stretch is from {start:g} to {end:g} s; it must begin at 0 or later, and then end")
        file = self.vectors.place_of(row).file
        with self._computing:
            if self._encoder is None:
                self._encoder = self._open_encoder()
            found = encode_query(self._encoder, self.vectors, Path(file), start, end)
        name = as_text(self.vectors.place_of(row).entry.path)
        caption = f"similar to {name}, {time_text(start)} to {time_text(end)}"
        if found.widened is not None:
            first, last = found.widened
            caption += f", widened to a clip: {first:.2f} to {last:.2f} s"
        return order_by_similarity(self.vectors, found.vectors, caption, row, (file, *found.times))

    def _order_by_answer(self, kind: str, number: int) -> Order:
        answers = self.answers
        if answers is None:
            raise ValueError("train the probe first: label some spans, then choose Train")
        check_choice("class", number, len(answers.classes))
        if kind == "unsure":
            return Order(doubt(answers.probabilities), "where the probe is least sure")
        caption = f"sorted by the probability of {answers.classes[number]}"
        return Order(np.ascontiguousarray(answers.probabilities[:, number]), caption)

    def train(self) -> ProbeAnswers:
        """Train a probe on the labels.

        Raises:
            ValueError: fewer than two classes have labels.
        """
        with self._computing:
            answers = train_probe(self.catalogue, self.marks.class_of.copy(), self.marks.classes)
        with self._lock:
            self.answers = answers
            for name in [name for name in self._orders if name.startswith(("answer", "unsure"))]:
                del self._orders[name]
        return answers

    def _named(self, row: int) -> str:
        place = self.vectors.place_of(row)
        name = as_text(place.entry.path)
        if self.catalogue.has_whole_files:
            return name
        return f"{name}, {time_text(place.start_seconds)} to {time_text(place.end_seconds)}"


def _has_other_vectors(vectors: Vectors) -> bool:
    """Whether the folder has other vectors now, or none."""
    try:
        found = (vectors.folder / VECTORS).stat()
        return _stamp(vectors.folder, (found.st_mtime_ns, found.st_ino)) != vectors.description.stamp
    except (ValueError, OSError):
        return True


@lru_cache(maxsize=1)
def _stamp(folder: Path, state: tuple[int, int]) -> str:
    """The stamp of a folder's vectors, read once for each state of its description: windows ask every two seconds."""
    return read_description(folder).stamp
