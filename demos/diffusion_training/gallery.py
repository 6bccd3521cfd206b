"""Draws the pictures of the documentation: `python -m demos.diffusion_training.gallery`."""

import argparse
import logging
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from demos.diffusion_training.drawing import Picture
from demos.diffusion_training.evaluate import open_painter
from demos.diffusion_training.pictures import CHECKPOINT, DEFAULTS
from demos.diffusion_training.prompts import held_out_prompts

logger = logging.getLogger("demos.gallery")

OUTPUT = Path(__file__).parents[2] / "docs" / "images" / "demo-grid.png"
COLUMNS, ROWS = 4, 2
MARGIN, LABEL_HEIGHT, LABEL_WIDTH = 8, 40, 24  # pixels, pixels, letters


def make_grid(pictures: list[Picture], labels: list[str]) -> Image.Image:
    """Pictures in rows, each above its label."""
    height, width = pictures[0].shape[:2]
    cell_width, cell_height = width + MARGIN, height + LABEL_HEIGHT + MARGIN
    grid = Image.new("RGB", (COLUMNS * cell_width + MARGIN, ROWS * cell_height + MARGIN), "white")
    pen = ImageDraw.Draw(grid)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = MARGIN + index % COLUMNS * cell_width
        top = MARGIN + index // COLUMNS * cell_height
        grid.paste(Image.fromarray(np.ascontiguousarray(picture)), (left, top))
        text = textwrap.fill(label, LABEL_WIDTH)
        pen.text((left, top + height + 2), text, fill="black", font_size=10)
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--engine", type=Path, help="a compiled engine, instead of the checkpoint")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    texts = [prompt.text for prompt in held_out_prompts(COLUMNS * ROWS)]
    with open_painter(options.checkpoint, options.engine) as painter:
        pictures = painter.draw(texts, DEFAULTS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    make_grid(pictures, texts).save(options.output, optimize=True)
    logger.info("%s written", options.output)


if __name__ == "__main__":
    main()
