"""Synthetic videos: a small labelled collection for trying every command without a download.

The scenes make the pretext task (paper, section 3) learnable in minutes, more easily than on real videos. All shapes
are regular and the background consists of square tiles of one size, so that a change of scale or a projection is
visible. All motions and the camera have a fixed pace, so that playback speed is visible. Beneath the tiles is a texture
with a 1/f spectrum, as in natural images. The class of a clip is its kind of motion.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v3s.files.writing import write_atomically
from v3s.pages.images import mp4

PERIOD_FRAMES = 40.0
"""Frames in one cycle of a motion; the period of each clip varies by up to ``PERIOD_SPREAD``, as a share."""

PERIOD_SPREAD = 0.15

_FRAMES_PER_HEIGHT = 60
"""Frames in which the camera pans sideways by one frame height; the same in every clip."""

_TILES_PER_HEIGHT = 8
"""Background tiles per frame height; the same in every clip."""

_Floats = NDArray[np.floating]
_Field = Callable[[_Floats, _Floats], _Floats]


@dataclass(frozen=True, slots=True)
class _Poses:
    """The pose of each object in each frame: four arrays of shape (num_objects, num_frames).

    Convention: lengths are in frame heights, the origin is the frame's top left corner, y points down, angles are in
    radians and turn clockwise on the screen.
    """

    x: _Floats
    y: _Floats
    radius: _Floats
    angle: _Floats


@dataclass(frozen=True, slots=True)
class Look:
    """The look of an object: signed distance and two-tone pattern, over coordinates in units of its radius."""

    shape: _Field
    pattern: _Field
    colours: _Floats  # (2, 3, 1, 1), in 0..255


def make_clips(
    folder: Path,
    *,
    num_videos: int = 64,
    num_frames: int = 96,
    height: int = 120,
    width: int = 160,
    fps: int = 25,
    seed: int = 0,
) -> list[Path]:
    """Write short videos into one folder per kind of motion, ``folder/<motion>/clip_000.mp4``.

    Video ``i`` depends only on (seed, i) and shows motion ``i mod len(MOTIONS)``; an existing file is replaced.

    Args:
        folder: The parent of the class folders; created if missing.
        num_videos: Number of files.
        num_frames: Number of frames in each file.
        height: Frame height in pixels, even.
        width: Frame width in pixels, even.
        fps: Frames per second of the file; the pace of the motion is fixed in frames.
        seed: Seed of the whole collection.

    Returns:
        The files, in order of creation.

    Raises:
        ValueError: If a count is not positive or a side is not a positive even number.
    """
    sizes = {"num_videos": num_videos, "num_frames": num_frames, "height": height, "width": width, "fps": fps}
    if min(sizes.values()) < 1 or height % 2 or width % 2:
        raise ValueError(f"synthetic clips need positive numbers, and an even height and width; got {sizes}")
    kinds, paths = list(MOTIONS), []
    for index in range(num_videos):
        turn, kind = divmod(index, len(kinds))
        path = Path(folder) / kinds[kind] / f"clip_{turn:03d}.mp4"
        rng = np.random.default_rng((seed, index))
        film = mp4(_film(rng, kinds[kind], num_frames, height, width), fps)
        write_atomically(path, partial(Path.write_bytes, data=film))
        paths.append(path)
    return paths


def _film(rng: np.random.Generator, kind: str, num_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Render one scene: a background seen by a panning camera, objects that it follows, sensor noise; (T, H, W, 3)."""
    period = PERIOD_FRAMES * rng.uniform(1 - PERIOD_SPREAD, 1 + PERIOD_SPREAD)
    cycles = (np.arange(num_frames) / period).astype(np.float32)
    poses = MOTIONS[kind](rng, cycles, width / height)
    looks = [_look(rng) for _ in poses.x]
    travel = np.arange(num_frames) * height / _FRAMES_PER_HEIGHT  # of the camera, in pixels
    across = travel if rng.random() < 0.5 else travel[-1] - travel
    reach = max(2, height // 16)
    down = reach * np.sin(np.pi * cycles + rng.uniform(0, 2 * np.pi))
    camera = np.stack([across, down], axis=1)
    scene = _background(rng, height + 2 * reach + 1, width + math.ceil(travel[-1]) + 1, height / _TILES_PER_HEIGHT)
    grain = rng.normal(0, 2, (3, height + 32, width + 32)).astype(np.float32)
    corners = rng.integers(0, 32, (num_frames, 2))
    film = np.empty((num_frames, 3, height, width), np.uint8)
    for t, (dx, dy) in enumerate(camera):
        frame = _view(scene, reach + dy, dx, height, width)
        for n, look in enumerate(looks):
            x, y = poses.x[n, t] * height, poses.y[n, t] * height
            _paint(frame, look, x, y, poses.radius[n, t] * height, poses.angle[n, t])
        top, left = corners[t]
        frame += grain[:, top : top + height, left : left + width]
        film[t] = np.clip(frame, 0, 255)
    return np.moveaxis(film, 1, -1)


def _background(rng: np.random.Generator, height: int, width: int, tile: float) -> _Floats:
    """A still scene: tiles and 1/f texture around one colour, lit by a gradient; (3, H, W), sizes in pixels."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # the mean is set by `colour`
    texture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(4, height, width))) / frequency, s=(height, width))
    texture /= texture.std(axis=(1, 2), keepdims=True)
    turn = rng.uniform(0, 2 * np.pi)
    light = np.cos(turn) * np.linspace(-1, 1, height)[:, None] + np.sin(turn) * np.linspace(-1, 1, width)
    grey = 10 * texture[0] + 20 * light
    colour = rng.uniform(80, 170, (3, 1, 1))
    row, column = (np.sin(np.pi * (np.arange(n) / tile + rng.uniform(0, 2))) for n in (height, width))
    tiles = 38 * np.clip(2 * np.outer(row, column), -1, 1)
    scene: _Floats = (colour + grey + tiles + 4 * texture[1:]).astype(np.float32)
    return scene


def _view(scene: _Floats, top: float, left: float, height: int, width: int) -> _Floats:
    """Cut a window (3, height, width) at a fractional position, by bilinear interpolation."""
    row, column = int(top), int(left)
    a, b = top - row, left - column
    strip = scene[:, row : row + height + 1, column : column + width + 1]
    rows = strip[:, :-1] * (1 - a) + strip[:, 1:] * a
    return rows[:, :, :-1] * (1 - b) + rows[:, :, 1:] * b


def _paint(frame: _Floats, look: Look, x: float, y: float, radius: float, angle: float) -> None:
    """Draw one object onto a frame (3, H, W) in place, with soft edges; lengths in pixels."""
    reach = 1.15 * radius + 1  # the rounded square's corner is at 1.12 radii
    top, left = max(int(y - reach), 0), max(int(x - reach), 0)
    patch = frame[:, top : max(int(y + reach + 1), 0), left : max(int(x + reach + 1), 0)]
    dy = np.arange(patch.shape[1], dtype=np.float32)[:, None] + (top + 0.5 - y)
    dx = np.arange(patch.shape[2], dtype=np.float32) + (left + 0.5 - x)
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    cover = np.clip(0.5 - look.shape(u, v) * radius, 0, 1)
    mix = np.clip(0.5 + look.pattern(u, v) * radius, 0, 1)
    light = 1 - 0.25 / radius * (dx + dy)  # lit from the top left, at every angle
    patch += cover * ((look.colours[0] + mix * (look.colours[1] - look.colours[0])) * light - patch)


def _look(rng: np.random.Generator) -> Look:
    """Draw a shape, a pattern and two clearly different colours."""
    shape, pattern = SHAPES[rng.integers(len(SHAPES))], PATTERNS[rng.integers(len(PATTERNS))]
    dark, bright = rng.uniform(10, 110, (3, 1, 1)), rng.uniform(150, 250, (3, 1, 1))
    colours = rng.permuted(np.stack([dark, bright]), axis=0).astype(np.float32)  # swapped per channel: vivid
    return Look(shape, pattern, colours)


# Shapes: signed distance to the outline, negative inside, for an object of radius 1.


def _disc(u: _Floats, v: _Floats) -> _Floats:
    distance: _Floats = np.hypot(u, v) - 1
    return distance


def _ring(u: _Floats, v: _Floats) -> _Floats:
    distance: _Floats = np.abs(np.hypot(u, v) - 0.75) - 0.25
    return distance


def _rounded_square(u: _Floats, v: _Floats) -> _Floats:
    beyond_u, beyond_v = (np.maximum(np.abs(w) - 0.65, 0) for w in (u, v))
    distance: _Floats = np.hypot(beyond_u, beyond_v) - 0.2
    return distance


def _polygon(u: _Floats, v: _Floats, num_sides: int) -> _Floats:
    half = math.pi / num_sides
    distance: _Floats = np.hypot(u, v) * np.cos(np.mod(np.arctan2(v, u), 2 * half) - half) - math.cos(half)
    return distance


SHAPES: tuple[_Field, ...] = (
    _disc,
    _ring,
    _rounded_square,
    partial(_polygon, num_sides=3),
    partial(_polygon, num_sides=5),
    partial(_polygon, num_sides=6),
)

# Patterns: positive in areas of the second colour. None is symmetric under a quarter turn, so rotations are visible.


def _half(u: _Floats, v: _Floats) -> _Floats:
    return u + 0 * v


def _checker(u: _Floats, v: _Floats) -> _Floats:
    inside: _Floats = np.sin(np.pi * u) * np.sin(np.pi * v) / np.pi
    return inside


def _spot(u: _Floats, v: _Floats) -> _Floats:
    inside: _Floats = 0.35 - np.hypot(u - 0.55, v)
    return inside


PATTERNS: tuple[_Field, ...] = (_half, _checker, _spot)

# Motions: (generator, finished cycles at each frame (num_frames,), width / height) -> _Poses.

Motion = Callable[[np.random.Generator, _Floats, float], _Poses]


def _poses(x: _Floats, y: _Floats, radius: _Floats, angle: _Floats) -> _Poses:
    """Broadcast four arrays to (num_objects, num_frames)."""
    return _Poses(*(np.ascontiguousarray(part, np.float32) for part in np.broadcast_arrays(x, y, radius, angle)))


def _column(rng: np.random.Generator, low: float, high: float, num_objects: int) -> _Floats:
    """One number per object, shape (num_objects, 1)."""
    return rng.uniform(low, high, (num_objects, 1)).astype(np.float32)


def _between(low: _Floats, high: _Floats, distance: _Floats) -> _Floats:
    """Return the position of a point that has travelled ``distance`` back and forth between two walls."""
    room = high - low
    return high - np.abs(np.mod(distance, 2 * room) - room)


def _bounce(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(2, 5))
    radius, heading = _column(rng, 0.1, 0.16, num_objects), _column(rng, 0, 2 * np.pi, num_objects)
    x = _between(radius, aspect - radius, _column(rng, 0, 4, num_objects) + np.cos(heading) * cycles)
    y = _between(radius, 1 - radius, _column(rng, 0, 4, num_objects) + np.sin(heading) * cycles)
    return _poses(x, y, radius, heading)


def _orbit(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(2, 5))
    start = np.linspace(0, 2 * np.pi, num_objects, endpoint=False)[:, None] + rng.uniform(0, 2 * np.pi)
    around = start + rng.choice([-1, 1]) * 2 * np.pi * cycles
    distance, centre = rng.uniform(0.26, 0.34), aspect * rng.uniform(0.4, 0.6)
    x, y = centre + distance * np.cos(around), 0.5 + distance * np.sin(around)
    return _poses(x, y, _column(rng, 0.08, 0.13, num_objects), start)


def _spin(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(2, 4))
    slots = (np.arange(num_objects)[:, None] + _column(rng, 0.4, 0.6, num_objects)) / num_objects
    turn = 2 * np.pi * cycles * rng.choice([-1, 1], (num_objects, 1))
    radius = _column(rng, 0.16, 0.22, num_objects)
    return _poses(slots * aspect, _column(rng, 0.3, 0.7, num_objects), radius, turn + slots)


def _pendulum(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(1, 4))
    slots = (np.arange(num_objects)[:, None] + 0.5) / num_objects * aspect
    swing = rng.uniform(0.6, 0.8) * np.cos(2 * np.pi * (cycles + _column(rng, 0, 1, num_objects)))
    length = _column(rng, 0.6, 0.75, num_objects)
    x, y = slots + length * np.sin(swing), length * np.cos(swing)
    return _poses(x, y, _column(rng, 0.1, 0.15, num_objects), -swing)


def _pulse(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(2, 4))
    slots = (np.arange(num_objects)[:, None] + 0.5) / num_objects * aspect
    beat = 1 + 0.5 * np.sin(2 * np.pi * (cycles + _column(rng, 0, 1, num_objects)))
    radius = _column(rng, 0.12, 0.17, num_objects) * beat
    return _poses(slots, _column(rng, 0.3, 0.7, num_objects), radius, _column(rng, 0, 6.28, num_objects))


def _walk(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(1, 4))
    step = 2 * np.pi * (cycles + _column(rng, 0, 1, num_objects))
    radius = _column(rng, 0.11, 0.16, num_objects)
    x = _between(radius, aspect - radius, _column(rng, 0, 4, num_objects) + 0.6 * cycles)
    y = _column(rng, 0.45, 0.8, num_objects) - 0.14 * np.abs(np.sin(step))
    return _poses(x, y, radius, 0.35 * np.sin(step))


def _drop(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(1, 4))
    slots = (np.arange(num_objects)[:, None] + _column(rng, 0.3, 0.7, num_objects)) / num_objects
    flight = np.mod(cycles + _column(rng, 0, 1, num_objects), 1)
    radius = _column(rng, 0.1, 0.15, num_objects)
    y = 0.95 - radius - 4 * _column(rng, 0.55, 0.65, num_objects) * flight * (1 - flight)
    return _poses(slots * aspect, y, radius, _column(rng, 0, 6.28, num_objects))


def _rain(rng: np.random.Generator, cycles: _Floats, aspect: float) -> _Poses:
    num_objects = int(rng.integers(10, 15))
    y = np.mod(_column(rng, 0, 1.2, num_objects) + 1.4 * cycles, 1.2) - 0.1
    radius = _column(rng, 0.035, 0.06, num_objects)
    return _poses(_column(rng, 0, aspect, num_objects), y, radius, _column(rng, 0, 6.28, num_objects))


MOTIONS: dict[str, Motion] = {
    "bounce": _bounce,
    "drop": _drop,
    "orbit": _orbit,
    "pendulum": _pendulum,
    "pulse": _pulse,
    "rain": _rain,
    "spin": _spin,
    "walk": _walk,
}
