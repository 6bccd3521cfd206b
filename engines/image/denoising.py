"""`Denoising`: one request on its way from noise to picture."""

from __future__ import annotations

import numpy as np

from engines.errors import InvalidRequest
from engines.image.conditioning import encode_request, guide
from engines.image.inpainting import Inpainting
from engines.image.request import ImageRequest, Picture
from engines.image.runner import Conditioning, FloatArray, ImageRunner
from engines.image.schedulers.schedule import NoiseSchedule
from engines.image.schedulers.stepper import Stepper
from engines.manifest import ImageSpec

Group = tuple[int, int, bool]  # height, width, and whether the next step is a shallow one


class Denoising:
    """The only mutable object of the image engine: the latents of one request, step by step.

    All noise is drawn from a generator of its own, in the order of its own steps, so that a picture
    does not depend on what else is running.

    Raises:
        InvalidRequest: The scheduler or the number of steps does not fit the model.
    """

    def __init__(self, request: ImageRequest, spec: ImageSpec, schedule: NoiseSchedule) -> None:
        self.request = request
        self.num_rows = 2 if request.is_guided(spec) else 1
        self._spec = spec
        self._stepper = _build_stepper(request, spec, schedule)
        self._start = _start_index(request, self._stepper)
        self._index = self._start
        self._generator = np.random.default_rng(request.seed)
        self._latents: FloatArray | None = None  # [latent_channels, h, w]
        self._inpainting: Inpainting | None = None
        self._conditioning: Conditioning | None = None
        self._deep_features: FloatArray | None = None  # [num_rows, ...]

    @property
    def image_id(self) -> int:
        return self.request.image_id

    @property
    def group(self) -> Group:
        """Only requests of the same group share a run."""
        return self.request.height, self.request.width, self.is_shallow

    @property
    def num_pixels(self) -> int:
        return self.request.height * self.request.width

    @property
    def is_shallow(self) -> bool:
        """Whether the next step takes the deep features of an earlier one."""
        return self.num_steps_taken % self.request.cache_interval > 0

    @property
    def keeps_features(self) -> bool:
        """Whether the deep features of the next step, a whole one, are taken again later."""
        return self.request.cache_interval > 1 and self._index + 1 < self._stepper.num_steps

    @property
    def num_steps(self) -> int:
        return self._stepper.num_steps - self._start

    @property
    def num_steps_taken(self) -> int:
        return self._index - self._start

    @property
    def is_finished(self) -> bool:
        return self._index == self._stepper.num_steps

    @property
    def latents(self) -> FloatArray:
        """[latent_channels, h, w]"""
        assert self._latents is not None, "prepare() comes first"
        return self._latents

    @property
    def conditioning(self) -> Conditioning:
        """`num_rows` rows."""
        assert self._conditioning is not None, "prepare() comes first"
        return self._conditioning

    @property
    def deep_features(self) -> FloatArray:
        """What the last whole run left for shallow ones. [num_rows, ...]"""
        assert self._deep_features is not None, "the first step is a whole one"
        return self._deep_features

    @property
    def timestep(self) -> float:
        return float(self._stepper.timesteps[self._index])

    def prepare(self, runner: ImageRunner) -> None:
        """Encode the texts and draw the first latents; a second call does nothing."""
        if self._conditioning is not None:
            return
        self._latents = self._first_latents(runner)
        self._conditioning = encode_request(self.request, self._spec, runner)

    def model_input(self) -> FloatArray:
        """The sample for each of its rows. [num_rows, latent_channels, h, w]"""
        scaled = self._stepper.scale_input(self.latents, self._index)
        return np.repeat(scaled[None], self.num_rows, axis=0)

    def advance(
        self, output: FloatArray, deep_features: FloatArray | None = None
    ) -> FloatArray | None:
        """Take one step, and let go of what no later step needs.

        Args:
            output: What the model predicted for each row. [num_rows, latent_channels, h, w]
            deep_features: Those of a whole run, where the request keeps them. [num_rows, ...]

        Returns:
            The latents of a preview, if one was asked for after this step. [latent_channels, h, w]
        """
        index, stepper = self._index, self._stepper
        predicted = guide(output, self.request.guidance_scale, self._spec)
        wants_preview = self.num_steps_taken + 1 in self.request.preview_steps
        is_last = index + 1 == stepper.num_steps
        preview = None
        if wants_preview and not is_last:
            preview = stepper.predicted_original(predicted, index, self.latents)
        noise = self._noise() if stepper.uses_noise(index) else None
        self._latents = stepper.step(predicted, index, self.latents, noise)
        self._index += 1
        if self._inpainting is not None:
            self._latents = self._inpainting.keep(self._latents, stepper, self._index)
            preview = None if preview is None else self._inpainting.keep_clean(preview)
        if is_last:
            self._conditioning = self._deep_features = None
        elif deep_features is not None:
            self._deep_features = deep_features.copy()  # without the rows of others
        return preview

    def to_picture(self, images: FloatArray) -> Picture:
        """What the decoder made of latents of this request, as pixels. [height, width, 3]

        Args:
            images: [1, 3, height, width] of about -1 to 1.
        """
        levels = np.rint((images[0] * 0.5 + 0.5).clip(0, 1) * 255)
        picture = np.ascontiguousarray(levels.transpose(1, 2, 0).astype(np.uint8))
        return picture if self._inpainting is None else self._inpainting.paste(picture)

    def _first_latents(self, runner: ImageRunner) -> FloatArray:
        request, stepper = self.request, self._stepper
        if request.image is None:
            return self._noise() * np.float32(stepper.init_noise_sigma)
        mean, deviation = runner.encode_image(_from_picture(request.image))
        original = mean[0] + deviation[0] * self._noise()
        noise = self._noise()
        if request.mask is not None:
            self._inpainting = Inpainting(request.image, request.mask, original, noise)
            if request.strength == 1:  # nothing of the image is to shine through
                return noise * np.float32(stepper.init_noise_sigma)
        return stepper.add_noise(original, noise, self._start)

    def _noise(self) -> FloatArray:
        scale = self._spec.latent_scale
        size = self.request.height // scale, self.request.width // scale
        shape = (self._spec.latent_channels, *size)
        return self._generator.standard_normal(shape, np.float32)


def _from_picture(picture: Picture) -> FloatArray:
    """[height, width, 3] of 0 to 255 -> [1, 3, height, width] of -1 to 1."""
    pixels = picture.astype(np.float32).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels / np.float32(127.5) - 1)


def _build_stepper(request: ImageRequest, spec: ImageSpec, schedule: NoiseSchedule) -> Stepper:
    try:
        settings = schedule.settings(request.scheduler)
    except ValueError as error:
        raise InvalidRequest(str(error), "scheduler") from None
    try:
        return settings.stepper(request.num_inference_steps, _num_image_tokens(request, spec))
    except ValueError as error:
        raise InvalidRequest(str(error), "num_inference_steps") from None


def _num_image_tokens(request: ImageRequest, spec: ImageSpec) -> int:
    """How many pieces of `size_multiple` a side a transformer sees; flow schedules depend on it."""
    return (request.height // spec.size_multiple) * (request.width // spec.size_multiple)


def _start_index(request: ImageRequest, stepper: Stepper) -> int:
    if request.image is None:
        return 0
    start = stepper.start_index(request.strength)
    if start >= request.num_inference_steps:
        raise InvalidRequest(
            f"strength is {request.strength}, but with {request.num_inference_steps} steps it has "
            f"to be at least {1 / request.num_inference_steps:.3g} for a single one",
            "strength",
        )
    return start
