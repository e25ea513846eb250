"""Standard errors over groups of videos, since takes of one scene are right or wrong together; what is above chance."""

from collections.abc import Mapping
from math import inf, sqrt
from statistics import NormalDist

import torch
from torch import Tensor

from v3s.files.text import counted, share_text, verb
from v3s.pretext.task import PretextTask

_FEW_GROUPS = 10  # with fewer, also a high share can be not clearly above chance


def standard_error(scores: Tensor, groups: Tensor) -> float:
    """Return the standard error of the mean of the videos' scores, with groups as independent samples.

    This is the cluster-robust error: sqrt(G / (G - 1) x sum over groups of (sum of a group's deviations)^2) / N. If
    each video is its own group, it is the ordinary standard error; if there is only one group, videos are taken as
    independent.

    Args:
        scores: score of each video, such as 1 if it is right and 0 if not, shape (N,). For a comparison of two networks
            on the same videos, the difference of their scores.
        groups: number of each video's group, int64, shape (N,).

    Returns:
        The error; 0 for a single video.
    """
    num_groups = len(torch.unique(groups))
    if num_groups == 1:
        groups, num_groups = torch.arange(len(scores)), len(scores)
    if num_groups == 1:
        return 0.0
    deviations = scores.double() - scores.double().mean()
    sums = torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add_(0, groups, deviations)
    return sqrt(num_groups / (num_groups - 1) * float(sums.square().sum())) / len(scores)


def critical_value(num_groups: int) -> float:
    """Return how many standard errors over groups a mean must exceed: one-sided, at 1 %.

    This is Student's t with one degree of freedom less than there are groups, by the expansion of Cornish and Fisher;
    it differs from the exact value by less than 1 % from 5 groups on. Fewer than 4 show nothing: infinity.
    """
    if num_groups < 4:
        return inf
    z, freedom = NormalDist().inv_cdf(0.99), float(num_groups - 1)
    terms = z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return sum(term / freedom**power for power, term in enumerate(terms))


def is_above(accuracy: float, baseline: float, *, error: float, num_scores: int, num_groups: int) -> bool:
    """Whether an accuracy is significantly above a baseline: one-sided, at 1 %, over groups.

    Args:
        accuracy: share of the scores that are right, in [0, 1].
        baseline: what is right without looking, in [0, 1].
        error: standard error of the accuracy over groups.
        num_scores: number of scores.
        num_groups: number of groups that they are from.
    """
    by_chance = sqrt(baseline * (1 - baseline) / num_scores)
    return accuracy > baseline + critical_value(num_groups) * max(by_chance, error)


def chance_sentence(
    name: str, accuracy: float, baseline: float, *, error: float, num_scores: int, num_groups: int, noun: str
) -> str | None:
    """Say that a result is not clearly above chance, as by `is_above`; None if it is.

    Args:
        name: what was tested.
        accuracy: share of the test videos that are right, in [0, 1].
        baseline: what is right without looking, in [0, 1].
        error: standard error of the accuracy over groups.
        num_scores: number of test videos.
        num_groups: number of groups that they are from.
        noun: what they are: "video" or "span".
    """
    if is_above(accuracy, baseline, error=error, num_scores=num_scores, num_groups=num_groups):
        return None
    tested, sampled = counted(num_scores, f"test {noun}"), counted(num_groups, noun)
    if num_groups < num_scores:
        sampled = counted(num_groups, "group")
        tested += f" in {sampled}"
    if critical_value(num_groups) == inf:
        return f"{tested} {verb(num_scores, 'are')} too few to distinguish a result from chance"
    too_few = f": {sampled} are too few for a clear answer" if num_groups < _FEW_GROUPS else ""
    return (
        f"the {name} is not clearly above chance: {share_text(accuracy, error)} of {tested}, where "
        f"one answer to all, or guessing, gets {baseline:.1%}; these {noun}s do not show that it distinguishes the "
        f"classes{too_few}"
    )


def heads_at_chance(task: PretextTask, validation: Mapping[str, float], num_clips: int, noun: str) -> dict[str, str]:
    """The heads that are not clearly above chance, as by `is_above`, each with its sentence.

    A head with only one label, or without an accuracy, is not among them.

    Labels are drawn independently of the videos, so a network at chance is right on each clip independently, also on
    clips of one video; how well a head does on other videos is what :func:`v3s.evaluate` reports.

    Args:
        task: the tables of the heads.
        validation: the accuracies ``accuracy_spatial`` and ``accuracy_temporal``, in [0, 1], on clips with balanced
            labels.
        num_clips: number of these clips.
        noun: what they are of: "video" or "span".
    """
    found = {}
    for head, rows in (("spatial", task.spatial), ("temporal", task.temporal)):
        accuracy = validation.get(f"accuracy_{head}")
        if len(rows) < 2 or accuracy is None:
            continue
        chance = 1 / len(rows)
        if not is_above(accuracy, chance, error=0.0, num_scores=num_clips, num_groups=num_clips):
            compared = beside_chance(accuracy, chance, num_clips, noun)
            found[head] = f"the {head} head is not clearly above chance: {compared}; it may have learned nothing"
    return found


def beside_chance(accuracy: float, chance: float, num_clips: int, noun: str) -> str:
    """Say how accurate a head is on clips of held-out videos or spans, beside chance."""
    return f"{accuracy:.1%} of {counted(num_clips, 'clip')} of held-out {noun}s, chance is {chance:.1%}"
