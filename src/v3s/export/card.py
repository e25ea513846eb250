"""The card of a model: README.md, in the form that the Hugging Face hub shows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from v3s.export.graphs import CHECKED_BATCHES, INPUT, OPSET, TOLERANCE
from v3s.export.model import Model
from v3s.export.record import HELD_OUT, Record
from v3s.features.saved import Kind
from v3s.files.text import as_sentence, counted, share_text
from v3s.protocols.errors import heads_at_chance
from v3s.recognizers.calibration import Calibration
from v3s.video.light.mask import mask_text

CARD = "README.md"
_PAPER = "[Video 3D Sampling for Self-supervised Representation Learning](https://arxiv.org/abs/2107.03578)"
_PURPOSES: dict[Kind, str] = {
    "pretrained": "trained without labels by Video 3D Sampling",
    "recognizer": "a recognizer of {} classes",
    "converted": "weights of another project",
}
_USES: dict[Kind, str] = {
    "pretrained": "It was trained without labels, to recognise how clips of videos were warped in space and time, as "
    f"in {_PAPER}. Its vectors are for search, for maps of a collection, and as features of a classifier; it names "
    "nothing by itself.",
    "recognizer": "It gives each of its classes a probability. It always answers with one of them, also for a video "
    "that shows none.",
    "converted": "Its vectors are for search and as features of a classifier.",
}
_KEPT = {
    "loss": ", that with the lowest validation loss",
    "accuracy": ", that with the highest validation accuracy",
    "last": ", the last one; validation chose nothing",
}
_UNKNOWN = "Not recorded: the folder that was exported did not contain the files of its training."
_CONVERTED = "Another project trained these weights; v3s only renamed their tensors. See that project for what it used."
_LIMITS = """\
- The results above are of the videos counted there. Videos of other cameras, scenes or subjects may give others: test
  the model on videos of your own before you rely on it.
- It takes clips of the length and the size above. What happens faster than the frames of a clip, or takes longer than a
  clip, it does not see.
- What its training videos do not show, it has not learned; what they show in one way only, it may take for a rule."""


def card(model: Model, record: Record, *, licence: str | None, form: str) -> str:
    """Return the card of a model as Markdown.

    Args:
        model: the model.
        record: what is known of its training.
        licence: identifier of a licence of the weights; None if none is granted.
        form: what the folder contains: "safetensors", "onnx" or "torch".
    """
    trained = model.trained
    of_training = _CONVERTED if trained.kind == "converted" else _UNKNOWN
    num_train = trained.results.get("num_train")  # of a classifier on a frozen network, which is no run
    videos = record.videos or ({"for training": num_train} if num_train else {})
    nouns = f"{_values(model, record)['noun']}s"
    recipe = _table(("option", "value"), record.recipe.items())
    sections = {
        "How to load it": _loading(model, form),
        "What it is": _facts(model, form),
        "What it was trained on": _table((nouns, "number"), videos.items()) or of_training,
        "How it was trained": (recipe and recipe + _kept(model, record)) or _linear(model) or of_training,
        "Results": _results(model, record),
        "How a video is read": _reading(model),
        "Limits": _LIMITS,
        "Licence": _licence(model, licence),
    }
    purpose = _PURPOSES[trained.kind].format(len(trained.classes))
    title = f"# {trained.backbone}, width {trained.width:g}: {purpose}"
    parts = [_front_matter(model, licence, form), title, _lead(model)]
    return "\n\n".join([*parts, *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"


def _front_matter(model: Model, licence: str | None, form: str) -> str:
    """What the hub reads."""
    task = "video-classification" if model.trained.kind == "recognizer" else "feature-extraction"
    lines = ["library_name: v3s", f"pipeline_tag: {task}", "tags: [video, self-supervised-learning, v3s]"]
    if form == "onnx":
        lines[-1] = lines[-1].replace("v3s]", "v3s, onnx]")
    return "\n".join(["---", *([f"license: {licence}"] if licence else []), *lines, "---"])


def _lead(model: Model) -> str:
    """What the model is for, in a paragraph."""
    view = model.view
    return (
        f"A 3D convolutional network for clips of video: {view.clip_frames} frames of {view.clip_size} x "
        f"{view.clip_size} pixels. {_USES[model.trained.kind]} Made with v3s."
    )


def _kept(model: Model, record: Record) -> str:
    """Which epoch the weights are of; empty if that is not known."""
    epoch = model.trained.results.get("epoch")
    return "" if epoch is None else f"\n\nThe weights are those after epoch {epoch:.0f}{_KEPT.get(record.keep, '')}."


def _loading(model: Model, form: str) -> str:
    shape = ", ".join(map(str, model.clip_shape))
    comment = f"# float32 clips (B, {shape}) in [0, 1]"
    outputs = ", ".join(model.outputs) if len(model.outputs) > 1 else f"{model.outputs[0]},"  # unpacks a single one
    if form == "onnx":
        code = [
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("model.onnx")',
            f'{outputs} = session.run(None, {{"{INPUT}": clips}})  {comment}',
        ]
    elif form == "torch":
        code = [
            "import torch",
            'model = torch.export.load("model.pt2").module()',
            f"{outputs} = model(clips)  {comment}",
        ]
    elif model.trained.kind == "recognizer":
        code = [
            "import v3s",
            'recognizer = v3s.load_recognizer("FOLDER")  # or "hf:OWNER/NAME"',
            'print(recognizer.predict("video.mp4", k=3))',
        ]
    else:
        code = [
            "import v3s",
            'backbone = v3s.load_backbone("FOLDER")  # or "hf:OWNER/NAME"',
            f"features = backbone(clips)  {comment}",
        ]
    text = "\n".join(["```python", *code, "```"])
    if form == "onnx" and "logits" in model.outputs:
        text += (
            "\n\n`python predict_video.py VIDEO` prints the classes of a video; it needs numpy, PyAV and onnxruntime."
        )
    return text


def _facts(model: Model, form: str) -> str:
    trained, view = model.trained, model.view
    num_parameters = sum(value.numel() for value in model.backbone.parameters())
    rows: list[tuple[str, object]] = [
        ("network", f"{trained.backbone}, width {trained.width:g}, {num_parameters:,} parameters"),
        ("clips", f"{view.clip_frames} frames of {view.clip_size} x {view.clip_size} pixels, RGB in [0, 1]"),
        ("frame rate", "that of the file" if view.fps is None else f"{view.fps:g} frames per second"),
        ("window of deep pictures", view.window),
        ("mask of overlays", mask_text(view.mask) if view.mask else None),
        ("normalisation", f"inside the network: {trained.normalisation}" if trained.normalisation else None),
        ("feature", f"{model.feature.stage}, {model.feature.pool} over time and space" if model.feature.pool == "mean"
         else f"{model.feature.stage}, max-pooled"),
        ("outputs", ", ".join(model.outputs)),
        ("SHA-256 of the weights", trained.fingerprint),
    ]  # fmt: skip
    if trained.init:
        rows.append(("started from weights with SHA-256", trained.init.fingerprint))
    if trained.classes:
        rows.append(("classes", f"{len(trained.classes):,}, named in config.json"))
    text = _table(("", ""), [row for row in rows if row[1] is not None])
    if form != "safetensors":
        batches = " and ".join(map(str, CHECKED_BATCHES))
        of = f"ONNX, opset {OPSET}" if form == "onnx" else "A program of torch.export"
        text += (
            f"\n\n{of}, float32; the size of the batch is free, the size of a clip is not. Compared with the network "
            f"in batches of {batches}: every output differs by at most {TOLERANCE:g} of its largest value, or of 1."
        )
    return text


def _linear(model: Model) -> str:
    """How a classifier on a frozen network was fitted; empty for other models."""
    c = model.trained.results.get("c")
    if model.trained.kind != "recognizer" or c is None:
        return ""
    return (
        f"The classifier is a logistic regression (inverse penalty {c:g}) on features of the network, whose weights "
        "were not changed. How the network itself was trained is not recorded here."
    )


def _values(model: Model, record: Record) -> dict[str, Any]:
    """What the weights' description and the run's result.json say of these weights."""
    is_of_them = record.result.get("fingerprint") == model.trained.fingerprint
    noun = model.trained.results.get("noun", record.noun)  # of a saved probe, which is no run
    return {**model.trained.results, **(record.result if is_of_them else {}), "noun": noun}


def _results(model: Model, record: Record) -> str:
    trained = model.trained
    if trained.kind == "pretrained":
        return _of_heads(model, record)
    if trained.kind == "converted":
        return _CONVERTED
    values = _values(model, record)
    error = values.get("standard_error")
    rows = [
        (text, _percent(values[name], error if name == "top_1" else None))
        for name, text in (
            ("top_1", "top-1 accuracy"),
            ("top_5", "top-5 accuracy"),
            ("chance", "a uniform guess"),
            ("majority", "always the most frequent class"),
        )
        if values.get(name) is not None
    ]
    text = _table((f"on test {values['noun']}s", ""), rows) or "No test is recorded."
    num_train, num_fitted = values.get("num_train"), values.get("num_train_tested")
    if type(num_fitted) is int and type(num_train) is int and num_fitted != num_train:
        text += (
            f"\n\nThe tested classifier was fitted on {num_fitted:,} of the {num_train:,} {values['noun']}s. The one "
            f"here was then fitted on all of them, including the test {values['noun']}s."
        )
    if error:
        text += f"\n\n{_of_error(values, 'test')}"
    calibration = trained.recognition.get("calibration")
    return text + (f"\n\nCalibration of the probabilities: {_calibration(calibration)}." if calibration else "")


def _of_error(values: Mapping[str, Any], part: str) -> str:
    """What the standard errors are over: the groups of the videos or spans of a part, "test" or "validation"."""
    num_videos, num_groups = values.get(f"num_{part}"), values.get(f"num_{part}_groups")
    if type(num_videos) is not int or type(num_groups) is not int:  # of an earlier version
        return "± is the standard error over groups; how many there were is not recorded."
    noun = values["noun"]
    videos = counted(num_videos, noun)
    if num_groups == num_videos:
        return f"± is the standard error over {videos}, each counted by itself."
    if num_groups == 1:
        return f"± is the standard error over {videos}, each counted separately, although all belong to one group."
    return f"± is the standard error over {num_groups:,} groups of {videos}: {noun}s of a group count as one."


def _calibration(values: Mapping[str, Any]) -> str:
    found = Calibration(**values)
    held_out = counted(found.num_videos, f"held-out {found.noun}")
    if not found.is_fitted:
        return f"none, with only {held_out}"
    return (
        f"temperature {found.temperature:.3g}, fitted on {held_out}; the expected calibration error there is "
        f"{found.error_before:.1%} before and {found.error_after:.1%} after"
    )


def _of_heads(model: Model, record: Record) -> str:
    """Both heads of a pre-training against chance, with the errors that the run's report gives."""
    values = _values(model, record)
    num_videos = record.videos.get(HELD_OUT, 0)
    num_clips = num_videos * record.validation_clips
    rows, shown = [], {}
    for head, labels in (("spatial", model.trained.task.spatial), ("temporal", model.trained.task.temporal)):
        share = values.get(f"accuracy_{head}")
        if len(labels) > 1 and isinstance(share, float) and 0 <= share <= 1:
            shown[f"accuracy_{head}"] = share
            accuracy = _percent(share, values.get(f"standard_error_{head}"))
            rows.append((head, accuracy, _percent(1 / len(labels)), f"{len(labels)}"))
    if not rows:
        return _UNKNOWN
    text = _table(("head", "accuracy", "chance", "labels"), rows)
    if num_clips:
        chosen = ", by which the epoch was chosen" if record.keep in ("loss", "accuracy") else ""
        held_out = counted(num_videos, f"held-out {values['noun']}")
        text += f"\n\nOn {counted(num_clips, 'clip')} of {held_out}{chosen}."
        at_chance = heads_at_chance(model.trained.task, shown, num_clips, values["noun"]).values()
        text += "".join(f"\n\n{as_sentence(each)}" for each in at_chance)
    text += f"\n\n{_of_error(values, 'validation')}" if "±" in text else ""
    return text + (
        "\n\nThese are the accuracies of the pretext task: which transform a clip shows. They do not say how well the "
        "features serve a task of yours: measure that with `v3s probe`."
    )


def _reading(model: Model) -> str:
    view = model.view
    height, width = view.resized(1, 1)  # of frames of any size: no model that can be exported keeps their shape
    rate = "consecutive frames" if view.fps is None else f"frames, those nearest to {view.fps:g} instants per second"
    return (
        f"A clip is {view.clip_frames} {rate}. {view.num_clips} clips start evenly spaced over the video, or over the "
        "span that is asked for; one that is shorter than a clip repeats its last frame. A frame is resized to "
        f"{height:g} pixels high and {width:g} wide, and its centre, {view.clip_size} x {view.clip_size}, is cut out, "
        "in one step: every pixel of a clip averages up to 4 x 4 bilinear samples of the planes of the video, which "
        "then become RGB. Another way to resize changes the outputs a little."
    )


def _licence(model: Model, licence: str | None) -> str:
    if model.trained.kind == "converted":
        return f"{licence or 'Not stated here'}; the licence of the project that trained these weights applies."
    return licence or "None is granted yet: the owner of these weights has to choose one before others may use them."


def _percent(share: object, error: object = None) -> str:
    if not isinstance(share, int | float):
        return "not recorded"
    return share_text(share, error if isinstance(error, int | float) else None)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; empty if there are no rows."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines]) if lines else ""


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
