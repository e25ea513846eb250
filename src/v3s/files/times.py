"""Times in a recording as text: read from options, and printed everywhere, as h:mm:ss.s; and durations."""

import re

_FORM = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d*)?)", re.ASCII)
_EXAMPLES = "give seconds (754.5), minutes (12:34.5) or hours (0:12:34.5)"


def parse_time(text: str, name: str = "the time") -> float:
    """Read a time as seconds, h:mm:ss or m:ss, each with any number of decimals.

    Args:
        text: the time.
        name: what it is, for the message.

    Returns:
        Seconds, 0 or more.

    Raises:
        ValueError: the text has another form, or 60 seconds or more beside minutes.

    >>> parse_time("754.5"), parse_time("12:34.5"), parse_time("1:00:00")
    (754.5, 754.5, 3600.0)
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or (found[2] is not None and float(found[3]) >= 60) or len(text) > 20:
        raise ValueError(f"{name} is {text!r}, which is not a time: {_EXAMPLES}")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def duration_text(seconds: float) -> str:
    """How long something lasts, in the largest unit of which it has one, once rounded.

    >>> duration_text(36.04), duration_text(59.97), duration_text(408), duration_text(3599)
    ('36.0 s', '1.0 min', '6.8 min', '1.00 h')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if round(seconds / 60, 1) < 60 else f"{seconds / 3600:.2f} h"


def time_text(seconds: float) -> str:
    """A time as h:mm:ss.s, rounded to the nearest tenth of a second.

    >>> time_text(754.46), time_text(3599.96)
    ('0:12:34.5', '1:00:00.0')
    """
    tenths = int(10 * seconds + 0.5)
    minutes, tenths = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{tenths // 10:02d}.{tenths % 10}"
