"""The table of all commands, and those from a folder of videos to a trained network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        group: its group in the help.
        module: contains a function with the name of the command; its first argument is the dataclass of its options.
        summary: its line in the help.
        examples: command lines, without ``v3s``.
    """

    group: str
    module: str
    summary: str
    examples: tuple[str, ...]


COMMANDS = {
    "demo": Command(
        "first steps",
        "v3s.commands.demo",
        "run the full pipeline in minutes, on generated clips or your own, with a report",
        ("demo", "demo my_videos --out demo"),
    ),
    "check": Command(
        "your videos",
        "v3s.commands.check",
        "read every video once and report which are usable",
        ("check my_videos", "check UCF-101 --splits ucfTrainTestlist --out report.jsonl"),
    ),
    "prepare": Command(
        "your videos",
        "v3s.commands.prepare",
        "decode every video once, so that training needs no decoding",
        ("prepare my_videos --out store", "prepare my_videos --out store --short-side 128 --pixel-format jpeg"),
    ),
    "preview": Command(
        "your videos",
        "v3s.commands.preview",
        "show clips of your videos under each transform, with labels",
        ("preview my_videos", "preview my_videos --task ts --num-videos 8 --out speeds.html"),
    ),
    "pretrain": Command(
        "pre-training",
        "v3s.commands.pretrain",
        "train a backbone on videos without labels",
        ("pretrain my_videos --out run", "pretrain --out run --resume"),
    ),
    "evaluate": Command(
        "pre-training",
        "v3s.commands.evaluate",
        "measure both heads of a pre-trained model on other videos",
        ("evaluate other_videos --backbone run", "evaluate other_videos --backbone run --out scores.json"),
    ),
    "audit": Command(
        "pre-training",
        "v3s.commands.audit",
        "measure how much of each label can be read without the content",
        ("audit my_videos", "audit other_videos --backbone run --page audit.html"),
    ),
    "replay": Command(
        "pre-training",
        "v3s.commands.replay",
        "run a batch that gave a NaN again and report where the NaN first appears",
        ("replay run", "replay run --device cpu"),
    ),
    "convert": Command(
        "pre-training",
        "v3s.commands.convert",
        "convert network weights from another project",
        ("convert vcop.pt --out converted", "convert r3d_18.pth --out converted"),
    ),
    "finetune": Command(
        "downstream tasks",
        "v3s.protocols.finetune",
        "train a backbone to recognise actions, then test it",
        (
            "finetune UCF-101 --splits ucfTrainTestlist --backbone run --out recognizer",
            "finetune UCF-101 --splits ucfTrainTestlist --backbone random:r3d --out scratch",
        ),
    ),
    "probe": Command(
        "downstream tasks",
        "v3s.protocols.probe",
        "classify frozen features: linear probe, nearest neighbours, few labels",
        ("probe UCF-101 --splits ucfTrainTestlist --backbone run", "probe labels.csv --in vectors --save recognizer"),
    ),
    "predict": Command(
        "downstream tasks",
        "v3s.recognizers.predict",
        "name what videos or segments of recordings show, with a trained recognizer",
        ("predict a.mp4 --segment 2 --recognizer run --out a.csv", "predict --in vectors --recognizer run --out a.csv"),
    ),
    "retrieve": Command(
        "downstream tasks",
        "v3s.protocols.retrieve",
        "find videos of the same class by nearest neighbours",
        (
            "retrieve UCF-101 --splits ucfTrainTestlist --backbone run",
            "retrieve UCF-101 --splits ucfTrainTestlist --backbone run --page neighbours.html",
            "retrieve --in vectors --splits ucfTrainTestlist --pool mean",
        ),
    ),
    "compare": Command(
        "downstream tasks",
        "v3s.protocols.compare",
        "compare backbones on the same videos: should I train my own?",
        ("compare labelled_videos --backbones random:r3d run1 run2 hf:facebook/dinov2-small --out comparison",),
    ),
    "similarity": Command(
        "downstream tasks",
        "v3s.protocols.similarity",
        "decide whether two videos show the same action",
        (
            "similarity UCF-101 --backbone run",
            "similarity ASLAN --pairs View2.mat --backbone run",
            "similarity --in vectors_conv4,vectors_conv5 --stages conv4,conv5",
        ),
    ),
    "explain": Command(
        "downstream tasks",
        "v3s.protocols.explain",
        "show where a network looks in a video (Grad-CAM)",
        ("explain a.mp4 --backbone run", "explain a.mp4 --backbone recognizer --target Archery --out archery"),
    ),
    "speediness": Command(
        "downstream tasks",
        "v3s.protocols.speediness",
        "plot how fast a video appears to play over time",
        ("speediness a.mp4 --backbone run", "speediness a.mp4 --backbone run --stride 8 --out fast.html"),
    ),
    "embed": Command(
        "search",
        "v3s.vectors.embed",
        "compute a feature vector for every video",
        (
            "embed my_videos --backbone run --out vectors",
            "embed my_videos --backbone run --out vectors --append",
            "embed my_videos --backbone run --out part1 --shard 1/4",
        ),
    ),
    "merge": Command(
        "search",
        "v3s.vectors.merge",
        "join folders of vectors",
        ("merge part1 part2 part3 part4 --out vectors", "merge old new --out vectors --overwrite"),
    ),
    "index": Command(
        "search",
        "v3s.vectors.index",
        "build an approximate nearest-neighbour index over vectors (FAISS)",
        ("index vectors", "index vectors --recall-queries 1000 -k 20"),
    ),
    "search": Command(
        "search",
        "v3s.vectors.search",
        "find the moments or videos most similar to one",
        (
            "search a.mp4 --in vectors --other-files",
            "search cage.mp4 --start 12:30 --end 12:34 --in vectors -k 50 --page found.html --clips found",
        ),
    ),
    "explore": Command(
        "search",
        "v3s.explore.explore",
        "show a collection as a page: map, clusters, near-duplicates, outliers, what to label next",
        ("explore vectors", "explore vectors --out explored --map tsne --clusters 0"),
    ),
    "serve": Command("search", "v3s.serve.serve", "look at a collection in the browser", ("serve vectors",)),
    "export": Command(
        "a model to give away",
        "v3s.export.export",
        "write a trained model into a folder to publish: weights, ONNX or torch.export, with a card",
        ("export run --out model --licence cc-by-4.0", "export recognizer --out model --format onnx"),
    ),
    "reproduce": Command(
        "the paper",
        "v3s.commands.reproduce",
        "run a table of the paper and print its numbers next to ours",
        (
            "reproduce table3 --data UCF-101 --splits ucfTrainTestlist --out tables",
            "reproduce table3 --data my_videos --scale tiny",
        ),
    ),
}
