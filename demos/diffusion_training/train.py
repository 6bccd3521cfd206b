"""Trains the diffusion demo: `python -m demos.diffusion_training.train --state-dir DIR`.

The autoencoder comes first, then the latents of the scenes, then the text encoder, then the
denoiser on all of those, and at the end the decoder alone, for sharper edges. A run that was
stopped goes on where it was.
"""

import argparse
import logging
from pathlib import Path
from random import Random

import torch

from demos.diffusion_training.autoencoder import AutoencoderTraining
from demos.diffusion_training.captions import draw_caption
from demos.diffusion_training.components import write_checkpoint
from demos.diffusion_training.decoder import DecoderTraining
from demos.diffusion_training.denoiser import DenoiserTraining
from demos.diffusion_training.latents import draw_scenes, load_latents
from demos.diffusion_training.pictures import CHECKPOINT
from demos.diffusion_training.text import TextTraining
from demos.diffusion_training.tokenizer import write_tokenizer
from demos.training.run import keep_freed_memory, stop_on_sigterm

logger = logging.getLogger("demos.training")

SEED = 7


def open_tokenizer(folder: Path) -> Path:
    """The tokenizer of this run, learnt at the first call."""
    if not folder.exists():
        rng = Random(f"{SEED} tokenizer")
        write_tokenizer((draw_caption(rng, scene) for scene in draw_scenes(20_000)), folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="where the run is kept")
    parser.add_argument(
        "--autoencoder-minutes", type=float, default=15, help="the autoencoder's training time"
    )
    parser.add_argument(
        "--text-minutes", type=float, default=4, help="time for the text encoder alone"
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="the denoiser's training time, restarts included"
    )
    parser.add_argument(
        "--decoder-minutes", type=float, default=8, help="time for the decoder alone, at the end"
    )
    parser.add_argument("--scenes", type=int, default=24_000, help="scenes to train on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="the checkpoint's folder")
    parser.add_argument(
        "--export-only", action="store_true", help="write the checkpoint of the state as it is"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    folder, stop = options.state_dir, stop_on_sigterm()
    autoencoder = AutoencoderTraining(folder / "autoencoder.pt", options.autoencoder_minutes * 60)
    if not options.export_only:
        autoencoder.train(stop)
    if stop.is_set():
        return
    scenes = draw_scenes(options.scenes)
    latents = load_latents(folder / "latents.pt", autoencoder.result, len(scenes))
    tokenizer = open_tokenizer(folder / "tokenizer")
    text = TextTraining(folder / "text.pt", options.text_minutes * 60, tokenizer)
    if not options.export_only:
        text.train(stop)
    denoiser = DenoiserTraining(
        folder / "denoiser.pt",
        options.minutes * 60,
        tokenizer,
        text.text_encoder,
        scenes,
        latents,
    )
    decoder = DecoderTraining(
        folder / "decoder.pt", options.decoder_minutes * 60, autoencoder.result, scenes, latents
    )
    if not options.export_only:
        denoiser.train(stop)
        decoder.train(stop)
    result = denoiser.result
    write_checkpoint(options.output, tokenizer, result.text_encoder, result.unet, decoder.result)
    logger.info(
        "checkpoint after %d steps written to %s", denoiser.run.progress.step, options.output
    )


if __name__ == "__main__":
    main()
