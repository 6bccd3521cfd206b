"""The diffusion demo: its captioned pictures, their classifier, and the checkpoint as shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.diffusion_training.captions import (
    COLOUR_WORDS,
    KIND_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    describe,
    draw_caption,
)
from demos.diffusion_training.classify import classify
from demos.diffusion_training.drawing import SIZE, draw_picture
from demos.diffusion_training.grading import BACKGROUND, COLOUR, KIND, NUMBER, PLACE, grade, shares
from demos.diffusion_training.pictures import CHECKPOINT, DEFAULTS, Painter, compile_checkpoint
from demos.diffusion_training.prompts import held_out_prompts
from demos.diffusion_training.scenes import (
    COLOURS,
    KINDS,
    PLACES,
    RADII,
    Scene,
    draw_scene,
    is_held_out,
)

MAX_BYTES = 16_000_000
NUM_PROMPTS = 30
seeds = st.integers(0, 2**32)


def spoken(words: dict[str, tuple[str, ...]], text: str) -> list[str]:
    """What a caption names, by the words that stand for it; longer words count first."""
    pairs = sorted(
        ((word, name) for name, choices in words.items() for word in set(choices)),
        key=lambda pair: -len(pair[0]),
    )
    found = []
    for word, name in pairs:
        text, count = re.subn(rf"(?<![a-z-]){word}(?![a-z-])", "", text)
        found += [name] * count
    return sorted(found)


colour_words = {colour: (colour, *COLOUR_WORDS.get(colour, ())) for colour in COLOURS}


@settings(deadline=None)
@given(seeds)
def test_a_caption_names_every_kind_and_colour_of_its_scene_and_no_other(seed: int) -> None:
    rng = Random(seed)
    scene = draw_scene(rng)
    text = describe(rng, scene)
    assert spoken(dict(KIND_WORDS), text) == sorted(shape.kind for shape in scene.shapes)
    colours = [shape.colour for shape in scene.shapes]
    assert spoken(colour_words, text) in (sorted(colours), sorted([*colours, scene.background]))


@settings(deadline=None)
@given(seeds)
def test_sizes_and_places_in_a_caption_are_those_of_its_scene(seed: int) -> None:
    rng = Random(seed)
    scene = draw_scene(rng)
    text = describe(rng, scene)
    assert set(spoken(dict(SIZE_WORDS), text)) <= {shape.size for shape in scene.shapes}
    relations = r"(to the|on the)? ?(left|right) of|on top of"
    places = spoken(dict(PLACE_WORDS), re.sub(relations, "", text))
    assert set(places) <= {shape.place for shape in scene.shapes}


@settings(deadline=None)
@given(seeds)
def test_a_caption_that_says_how_two_shapes_lie_says_it_right(seed: int) -> None:
    rng = Random(seed)
    scene = draw_scene(rng)
    text = describe(rng, scene)
    match = re.search(r"(left of|right of|above|below|beneath)", text)
    if match and len(scene.shapes) == 2:
        first, second = scene.shapes  # the left or upper one first
        before = spoken(dict(KIND_WORDS), text[: match.start()].rpartition(":")[2])
        says_order = match[0] in ("left of", "above")
        assert before == [(first if says_order else second).kind]


def test_one_caption_in_ten_is_empty_and_the_others_differ() -> None:
    rng = Random(0)
    scene = draw_scene(rng)
    captions = [draw_caption(rng, scene) for _ in range(2000)]
    assert 0.07 < captions.count("") / len(captions) < 0.13
    assert len(set(captions)) > 1000


def test_one_combination_in_ten_is_held_out_and_every_kind_and_colour_is_trained() -> None:
    combinations = [(k, c, b) for k in KINDS for c in COLOURS for b in COLOURS if c != b]
    held_out = [combination for combination in combinations if is_held_out(*combination)]
    assert 0.05 < len(held_out) / len(combinations) < 0.15
    trained = set(combinations) - set(held_out)
    for part, names in enumerate((KINDS, COLOURS, COLOURS)):
        assert {combination[part] for combination in trained} == set(names)


@settings(deadline=None)
@given(seeds)
def test_no_scene_for_training_has_a_combination_that_is_held_out(seed: int) -> None:
    scene = draw_scene(Random(seed))
    assert not any(is_held_out(s.kind, s.colour, scene.background) for s in scene.shapes)


@settings(deadline=None)
@given(seeds)
def test_a_held_out_scene_has_a_combination_that_is_held_out(seed: int) -> None:
    scene = draw_scene(Random(seed), held_out=True)
    assert any(is_held_out(s.kind, s.colour, scene.background) for s in scene.shapes)


def test_every_held_out_prompt_names_a_held_out_combination_and_says_what_it_wants() -> None:
    prompts = held_out_prompts(200)
    assert prompts[:50] == held_out_prompts(50)
    assert len({prompt.text for prompt in prompts}) > 180
    assert {len(prompt.shapes) for prompt in prompts} == {1, 2}
    for prompt in prompts:
        assert any(is_held_out(s.kind, s.colour, prompt.background) for s in prompt.shapes)
        wanted = [shape.colour for shape in prompt.shapes]
        assert spoken(colour_words, prompt.text) == sorted([*wanted, prompt.background])
        assert spoken(dict(KIND_WORDS), prompt.text) == sorted(s.kind for s in prompt.shapes)


def test_a_picture_has_the_named_colours_and_soft_edges() -> None:
    scene = draw_scene(Random(1))
    picture = draw_picture(scene)
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    levels = {tuple(level) for level in picture.reshape(-1, 3).tolist()}
    assert COLOURS[scene.background] in levels
    assert all(COLOURS[shape.colour] in levels for shape in scene.shapes)
    assert len(levels) > 1 + len(scene.shapes)


@settings(deadline=None)
@given(seeds)
def test_the_classifier_reads_back_every_drawn_scene(seed: int) -> None:
    scene = draw_scene(Random(seed), held_out=seed % 4 == 0)
    found = classify(draw_picture(scene))
    assert found.background == scene.background
    assert sorted((s.colour, s.kind, s.size, s.place) for s in found.shapes) == sorted(
        (s.colour, s.kind, s.size, s.place) for s in scene.shapes
    )


def test_the_classifier_sees_an_empty_picture_and_a_speck_as_no_shape() -> None:
    picture = draw_picture(Scene("blue", ()))
    assert classify(picture).shapes == ()
    picture[60:64, 60:64] = COLOURS["red"]
    assert classify(picture).shapes == ()
    assert classify(picture).background == "blue"


def test_grades_tell_each_attribute_apart() -> None:
    rng = Random(3)
    scene = next(
        scene
        for scene in (draw_scene(rng, held_out=True) for _ in range(99))
        if len(scene.shapes) == 1
    )
    shape = scene.shapes[0]
    prompt = next(prompt for prompt in held_out_prompts(500) if len(prompt.shapes) == 1)
    wanted = replace(
        prompt.shapes[0], kind=shape.kind, colour=shape.colour, size=shape.size, place=shape.place
    )
    prompt = replace(prompt, background=scene.background, shapes=(wanted,))
    found = classify(draw_picture(scene))
    assert all(grade(prompt, found).values())
    other_place = next(place for place in PLACES if place != shape.place)
    wrong = {
        KIND: replace(wanted, kind=next(kind for kind in KINDS if kind != shape.kind)),
        "size": replace(wanted, size=next(size for size in RADII if size != shape.size)),
        PLACE: replace(wanted, place=other_place),
    }
    for attribute, shapes in wrong.items():
        marks = grade(replace(prompt, shapes=(shapes,)), found)
        assert [name for name, is_right in marks.items() if not is_right] == [attribute]
    other = next(c for c in COLOURS if c not in (shape.colour, scene.background))
    marks = grade(replace(prompt, background=other), found)
    assert [name for name, is_right in marks.items() if not is_right] == [BACKGROUND]
    marks = grade(replace(prompt, shapes=(replace(wanted, colour=other),)), found)
    assert not marks[COLOUR]
    assert not marks[KIND]
    assert marks[NUMBER]


def test_the_checkpoint_is_small_and_in_half_precision() -> None:
    files = [path for path in CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 3
    for path in weights:
        header_length = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + header_length])
        types = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        assert types == {"F16"}


def test_diffusers_opens_the_checkpoint_and_both_tokenizers_agree(engine_folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer")
    ours = Tokenizer.from_file(str(engine_folder / "tokenizer.json"))
    for prompt in held_out_prompts(40):
        assert theirs(prompt.text).input_ids == ours.encode(prompt.text).ids
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(CHECKPOINT)
    assert pipeline.vae_scale_factor * pipeline.unet.config.sample_size == SIZE


@pytest.fixture(scope="module")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_checkpoint(CHECKPOINT, tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def painter(engine_folder: Path) -> Iterator[Painter]:
    painter = Painter(engine_folder)
    yield painter
    painter.close()


def test_prompts_that_were_never_trained_on_are_drawn_as_they_say(painter: Painter) -> None:
    prompts = held_out_prompts(NUM_PROMPTS)
    pictures = painter.draw([prompt.text for prompt in prompts], DEFAULTS)
    right = shares(
        grade(prompt, classify(picture)) for prompt, picture in zip(prompts, pictures, strict=True)
    )
    for attribute in (BACKGROUND, COLOUR, KIND, PLACE):
        num_right, of = right[attribute]
        assert num_right >= 0.9 * of, f"{attribute}: {num_right} of {of}"


def test_another_seed_draws_another_picture_and_the_same_seed_the_same(painter: Painter) -> None:
    text = "a green triangle on a white background"
    first, again, other = (
        painter.draw([text], replace(DEFAULTS, num_inference_steps=10, first_seed=seed))[0]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
