"""The embedded data set: an image folder of five kinds of flowers, drawn from a seed.

The quickstart and the tests need no photographs then. Position, size, rotation, number of petals,
colours and background vary from image to image; the kinds share colours, so that a network must
learn the shape.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flowers_jax.process.errors import UserError

Colour = tuple[int, int, int]
Rng = np.random.Generator

# Drawn this much larger and scaled down, for smooth edges.
SUPERSAMPLING = 3
GREEN, YELLOW, WHITE, BROWN = (70, 130, 50), (250, 205, 40), (245, 243, 235), (85, 50, 25)
BLOOM_COLOURS: tuple[Colour, ...] = (
    (200, 25, 50),
    (235, 110, 150),
    (250, 200, 60),
    (240, 235, 225),
    (225, 90, 40),
)


MARKER = ".drawn_by_flowers_jax"


def write(root: str | os.PathLike, per_class: int = 100, size: int = 96, seed: int = 0) -> None:
    """Writes `per_class` square PNG images of each kind below `root`, one folder per kind.

    The same seed gives the same bytes; image i of a kind does not depend on `per_class`. Images
    that are there already are left as they are.

    Args:
      root: the image folder to make.
      per_class: images of each kind.
      size: height and width in pixels.
      seed: of all that varies.

    Raises:
      UserError: the folder holds something that was not drawn.
    """
    root = Path(root)
    if not (root / MARKER).exists() and root.is_dir() and any(root.iterdir()):
        raise UserError(
            f"{root} holds other files, and no drawings go among them; choose an empty folder, or "
            "--config.data.source=folder to train on what it holds."
        )
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).touch()
    for k, kind in enumerate(KINDS):
        folder = root / kind
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            path = folder / f"{kind}_{i:04d}.png"
            if path.exists():
                continue
            partial = path.with_suffix(".part")
            draw(kind, size, np.random.default_rng([seed, k, i])).save(partial, format="PNG")
            os.replace(partial, path)


def draw(kind: str, size: int, rng: Rng) -> Image.Image:
    """One RGB image of a `kind` of flower, `size` pixels square."""
    large = SUPERSAMPLING * size
    image = _background(large, rng)
    centre = rng.uniform(0.4, 0.6, 2) * large
    radius = rng.uniform(0.22, 0.36) * large
    canvas = ImageDraw.Draw(image)
    _stem(canvas, centre, radius, large, rng)
    KINDS[kind](canvas, centre, radius, rng)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _vary(colour: Colour, rng: Rng, amount: int = 22) -> Colour:
    """A colour near `colour`."""
    return tuple(np.clip(np.add(colour, rng.integers(-amount, amount + 1, 3)), 0, 255).tolist())


def _background(size: int, rng: Rng) -> Image.Image:
    """Blurred blobs over a plain ground: meadow, sky, soil or a pale wall."""
    grounds = (GREEN, (125, 175, 225), (110, 85, 60), (205, 200, 190))
    ground = grounds[rng.integers(len(grounds))]
    image = Image.new("RGB", (size, size), _vary(ground, rng))
    canvas = ImageDraw.Draw(image)
    for _ in range(30):
        x, y = rng.uniform(0, size, 2)
        r = rng.uniform(0.03, 0.16) * size
        palette = (ground, ground, GREEN, *BLOOM_COLOURS)
        colour = _vary(palette[rng.integers(len(palette))], rng, 30)
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(0.035 * size))


def _stem(
    canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, size: int, rng: Rng
) -> None:
    """A stem from the bloom to the lower edge, with one leaf."""
    colour = _vary(GREEN, rng)
    foot = np.array([centre[0] + rng.uniform(-0.15, 0.15) * size, size])
    canvas.line((*centre, *foot), fill=colour, width=max(2, int(0.12 * radius)))
    joint = centre + 0.7 * (foot - centre)
    side = rng.choice([-1, 1])
    _petal(canvas, joint, -math.pi / 2 + side * 0.8, 0.9 * radius, 0.28 * radius, colour)


def _petal(
    canvas: ImageDraw.ImageDraw,
    base: np.ndarray,
    angle: float,
    length: float,
    width: float,
    colour: Colour,
) -> None:
    """A petal from `base` along `angle` (radians), with a darker rim."""
    t = np.linspace(0, 2 * math.pi, 24)
    along = length * (1 - np.cos(t)) / 2
    across = width / 2 * np.sin(t) * np.sqrt(along / length + 0.05)
    cos, sin = math.cos(angle), math.sin(angle)
    points = base + np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)
    rim = tuple(int(0.72 * c) for c in colour)
    canvas.polygon([tuple(p) for p in points], fill=colour, outline=rim, width=SUPERSAMPLING)


def _disc(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: Colour) -> None:
    canvas.ellipse((*(centre - radius), *(centre + radius)), fill=colour)


def _ring(
    canvas: ImageDraw.ImageDraw,
    centre: np.ndarray,
    petals: int,
    length: float,
    width: float,
    colour: Colour,
    rng: Rng,
) -> None:
    """Petals all around `centre`."""
    turn = rng.uniform(0, 2 * math.pi)
    for angle in turn + np.linspace(0, 2 * math.pi, petals, endpoint=False):
        stretch = rng.uniform(0.9, 1.08)
        _petal(canvas, centre, angle, stretch * length, width, _vary(colour, rng, 10))


def _daisy(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, rng: Rng) -> None:
    """Many narrow petals, white or pink, around a small yellow disc."""
    colour = _vary((WHITE, WHITE, (240, 190, 210))[rng.integers(3)], rng, 10)
    _ring(canvas, centre, int(rng.integers(14, 24)), radius, 0.3 * radius, colour, rng)
    _disc(canvas, centre, 0.26 * radius, _vary(YELLOW, rng))


def _dandelion(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, rng: Rng) -> None:
    """A pompom of fine rays: yellow in bloom, white and loose when it has gone to seed."""
    seeds = rng.random() < 0.4
    colour = (235, 235, 230) if seeds else YELLOW
    turn = rng.uniform(0, 2 * math.pi)
    for i in range(70 if seeds else 150):
        angle = turn + i * 2.4  # close to the golden angle: evenly spread
        tip = centre + radius * rng.uniform(0.75, 1.0) * np.array(
            [math.cos(angle), math.sin(angle)]
        )
        ray = _vary(colour, rng, 25)
        canvas.line((*centre, *tip), fill=ray, width=1 if seeds else SUPERSAMPLING)
        if seeds:
            _disc(canvas, tip, 0.05 * radius, ray)
    _disc(canvas, centre, 0.14 * radius, _vary(BROWN if seeds else (225, 160, 25), rng))


def _rose(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, rng: Rng) -> None:
    """Round petals in a spiral that closes towards the centre."""
    colour = np.array(_vary(BLOOM_COLOURS[rng.integers(len(BLOOM_COLOURS))], rng))
    turn = rng.uniform(0, 2 * math.pi)
    layers = int(rng.integers(13, 19))
    for i in range(layers):
        inner = i / layers
        angle = turn + 2.4 * i
        offset = 0.52 * radius * (1 - inner) * np.array([math.cos(angle), math.sin(angle)])
        size = radius * (0.56 - 0.42 * inner)
        shade = tuple((colour * (1.0 - 0.4 * inner)).astype(int).tolist())
        rim = tuple((colour * (0.72 - 0.3 * inner)).astype(int).tolist())
        box = (*(centre + offset - size), *(centre + offset + size))
        canvas.ellipse(box, fill=shade, outline=rim, width=SUPERSAMPLING)


def _sunflower(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, rng: Rng) -> None:
    """Two rings of pointed yellow petals around a large brown disc of seeds."""
    petals = int(rng.integers(13, 20))
    for length, shade in ((1.08, (235, 165, 25)), (1.0, YELLOW)):
        _ring(canvas, centre, petals, length * radius, 0.34 * radius, _vary(shade, rng), rng)
    _disc(canvas, centre, 0.48 * radius, _vary(BROWN, rng))
    for i in range(60):
        angle, distance = i * 2.39996, 0.46 * radius * math.sqrt(i / 60)
        seed = centre + distance * np.array([math.cos(angle), math.sin(angle)])
        _disc(canvas, seed, 0.028 * radius, _vary((140, 95, 50), rng))


def _tulip(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, rng: Rng) -> None:
    """A cup seen from the side: three upright petals that overlap, slightly tilted."""
    colour = np.array(_vary(BLOOM_COLOURS[rng.integers(len(BLOOM_COLOURS))], rng))
    up = -math.pi / 2 + rng.uniform(-0.25, 0.25)
    base = centre - 0.75 * radius * np.array([math.cos(up), math.sin(up)])
    spread = rng.uniform(0.3, 0.45)
    for tilt, light in ((-spread, 0.85), (spread, 0.85), (0.0, 1.0)):
        shade = tuple((light * colour).astype(int).tolist())
        _petal(canvas, base, up + tilt, 1.75 * radius, 1.05 * radius, shade)


KINDS: dict[str, Callable[[ImageDraw.ImageDraw, np.ndarray, float, Rng], None]] = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "rose": _rose,
    "sunflower": _sunflower,
    "tulip": _tulip,
}
