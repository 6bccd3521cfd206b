"""What a model draws while its activations are measured, and what is drawn to judge the result."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportError

# People, places, things, styles, light and dark, crowded and plain.
CALIBRATION_PROMPTS = (
    "a portrait of an old woman smiling, soft light, detailed photograph",
    "a red circle on a white background",
    "a mountain lake at sunrise with fog over the water",
    "a crowded street in Tokyo at night, neon signs, rain",
    "an oil painting of a ship in a storm",
    "a green triangle and a yellow star on a dark blue background",
    "a bowl of oranges on a wooden table, studio lighting",
    "a black cat asleep on a white sofa",
)
# None of those above: what is judged was not measured.
CHECK_PROMPTS = (
    "a blue square on a yellow background",
    "a photograph of an astronaut riding a horse on the beach",
    "a small orange star on a purple background",
    "a watercolor of a village in the snow",
)


def read_calibration_prompts(
    path: Path | None, built_in: tuple[str, ...] = CALIBRATION_PROMPTS
) -> tuple[str, ...]:
    """The prompts of a file, one a line, or the built-in ones.

    Raises:
        ExportError: The file cannot be read or holds no prompt.
    """
    if path is None:
        return built_in
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"--calibration-prompts {path} cannot be read: {error}") from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise ExportError(f"--calibration-prompts {path} holds no prompt: write one a line")
    return prompts
