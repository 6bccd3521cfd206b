"""The image engine: token ids and seeds in, pictures out, one denoising step a `step()`."""

from __future__ import annotations

from functools import partial

import numpy as np

from engines.image.conditioning import concatenate
from engines.image.decoding import Decode, DecodeQueue
from engines.image.denoising import Denoising
from engines.image.output import ImageEngineStats, ImageOutput
from engines.image.request import ImageRequest, check_request
from engines.image.runner import DenoiseBatch, FloatArray, ImageRunner
from engines.image.scheduler import ImageScheduler, ImageSchedulerConfig
from engines.image.schedulers.schedule import NoiseSchedule
from engines.image.tiling import Tiling
from engines.manifest import ImageSpec


class ImageEngine:
    """Denoises requests together. One thread owns it; `stats` may be read by all.

    Args:
        runner: The compiled model; closed with the engine.
        spec: What the manifest says of it.
        schedule: The noise that it was trained on.
        config: Limits of a step.
        device: What the engine runs on, for people to read.
        tiling: When pictures are decoded in tiles; None: never.
    """

    def __init__(
        self,
        runner: ImageRunner,
        spec: ImageSpec,
        schedule: NoiseSchedule,
        config: ImageSchedulerConfig,
        device: str,
        tiling: Tiling | None = None,
    ) -> None:
        self.device = device
        self._decode_latents = (
            runner.decode if tiling is None else partial(tiling.decode, runner.decode)
        )
        self.runner = runner
        self.spec = spec
        self.schedule = schedule
        self.scheduler = ImageScheduler(config)
        self._live: dict[int, Denoising] = {}
        self._decodes = DecodeQueue()
        self._num_steps = 0
        self._num_shallow_steps = 0
        self._num_rows = 0
        self._num_images = 0

    @property
    def max_num_images(self) -> int:
        return self.scheduler.config.max_num_images

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._decodes)

    def add(self, request: ImageRequest) -> None:
        """Queue a request; its progress and its picture come out of later steps.

        Raises:
            InvalidRequest: A field is beyond what the model can do.
            ValueError: Its `image_id` is in use.
        """
        if request.image_id in self._live:
            raise ValueError(
                f"image_id {request.image_id} belongs to a request that is not finished"
            )
        check_request(request, self.spec)
        denoising = Denoising(request, self.spec, self.schedule)
        self.scheduler.add(denoising)
        self._live[request.image_id] = denoising

    def abort(self, image_id: int) -> None:
        """End a request before its time; unknown and finished ids are ignored."""
        denoising = self._live.pop(image_id, None)
        if denoising is not None:
            self.scheduler.remove(denoising)
            self._decodes.remove(denoising)

    def step(self) -> list[ImageOutput]:
        """Take one denoising step of a batch, then decode one picture if one is ready.

        Returns:
            The progress of each request of the batch, and what was decoded.

        Raises:
            RunFailed: The runtime failed; the engine has to be closed.
        """
        # Requests of few steps can finish faster than the decoder follows.
        is_behind = self._decodes.num_pictures > self.max_num_images
        batch = [] if is_behind else self.scheduler.schedule()
        outputs: list[ImageOutput] = []
        if batch:
            outputs += self._update(batch, *self._run(batch))
        decode = self._decodes.pop()
        if decode is not None:
            outputs.append(self._decode(decode))
        return outputs

    def stats(self) -> ImageEngineStats:
        """Counters and gauges; a snapshot that may be a step old."""
        return ImageEngineStats(
            num_waiting=len(self.scheduler.waiting),
            num_running=len(self.scheduler.running),
            num_decoding=len(self._decodes),
            num_steps=self._num_steps,
            num_rows=self._num_rows,
            num_images=self._num_images,
            num_shallow_steps=self._num_shallow_steps,
        )

    def close(self) -> None:
        """Release the model. The engine cannot be used afterwards."""
        self._live.clear()
        self._decodes.clear()
        self.runner.close()

    def _run(self, batch: list[Denoising]) -> tuple[FloatArray, FloatArray | None]:
        """Run the denoiser over all rows of the batch.

        Returns:
            What it predicts, [n, latent_channels, h, w], and its deep features, [n, ...], if a
            request of the batch keeps them.
        """
        for denoising in batch:
            denoising.prepare(self.runner)
        timesteps = [t for denoising in batch for t in [denoising.timestep] * denoising.num_rows]
        inputs = DenoiseBatch(
            np.concatenate([denoising.model_input() for denoising in batch]),
            np.array(timesteps, np.float32),
            concatenate([denoising.conditioning for denoising in batch]),
        )
        self._num_steps += 1
        self._num_rows += len(timesteps)
        if batch[0].is_shallow:
            self._num_shallow_steps += 1
            deep_features = np.concatenate([denoising.deep_features for denoising in batch])
            return self.runner.denoise_shallow(inputs, deep_features), None
        if any(denoising.keeps_features for denoising in batch):
            return self.runner.denoise_keeping(inputs)
        return self.runner.denoise(inputs), None

    def _update(
        self, batch: list[Denoising], predictions: FloatArray, deep_features: FloatArray | None
    ) -> list[ImageOutput]:
        outputs, start = [], 0
        for denoising in batch:
            rows = slice(start, start + denoising.num_rows)
            start = rows.stop
            is_kept = denoising.keeps_features
            features = None if deep_features is None or not is_kept else deep_features[rows]
            preview = denoising.advance(predictions[rows], features)
            step = denoising.num_steps_taken
            if preview is not None:
                self._decodes.add(Decode(denoising, preview, step, is_preview=True))
            if denoising.is_finished:
                self._decodes.add(Decode(denoising, denoising.latents, step, is_preview=False))
            outputs.append(ImageOutput(denoising.image_id, step, denoising.num_steps))
        self.scheduler.update(batch)
        return outputs

    def _decode(self, decode: Decode) -> ImageOutput:
        picture = decode.denoising.to_picture(self._decode_latents(decode.latents[None]))
        image_id, num_steps = decode.denoising.image_id, decode.denoising.num_steps
        if decode.is_preview:
            return ImageOutput(image_id, decode.step, num_steps, preview=picture)
        self._num_images += 1
        del self._live[image_id]
        return ImageOutput(image_id, decode.step, num_steps, picture=picture)
