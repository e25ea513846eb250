"""The border with the libraries that read scientific files: one kind of error for all that can go wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

from v3s.options import MissingPackageError
from v3s.video.container import VideoError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever is raised inside leaves as a :class:`VideoError` of one line.

    tifffile and pydicom fail in many ways on damaged files: ``struct.error``, ``IndexError``, ``AssertionError``.

    Args:
        name: Begins the message: the file with a colon, or a folder with a colon and the file.
    """
    try:
        yield
    except VideoError:
        raise
    except MemoryError as error:
        raise VideoError(f"{name} asks for too much memory", "open") from error
    except OSError as error:
        raise VideoError(f"{name} cannot be read: {error.strerror or _line(error)}", "open") from error
    except Exception as error:
        is_said = type(error) in (ValueError, MissingPackageError)
        reason = _line(error) if is_said else f"{type(error).__name__}: {_line(error)}"
        raise VideoError(f"{name} cannot be read: {reason}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
