"""What `engine.json` tells of how near an engine is to its reference model."""

from __future__ import annotations

import msgspec


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The compiled graph against its reference on a fixed prompt set, in fp32."""

    reference: str  # for example "transformers 5.23.0 fp32" or "engine fp32"
    num_tokens: int  # positions compared
    max_logit_error: float
    mean_logit_error: float
    relative_logit_error: float  # ||logits - reference|| / ||reference||
    top1_agreement: float  # 0 to 1
    mean_kl: float  # nats
    seconds: float


class CacheQuantization(msgspec.Struct, frozen=True, kw_only=True):
    """What the scales of an int8 cache of keys and values, constants of the graph, were made of."""

    num_tokens: int  # that the ranges were measured on
    margin: float  # how much further than the largest seen the range of a channel goes


class Smoothing(msgspec.Struct, frozen=True, kw_only=True):
    """Outliers of activations that were shifted into the weights that read them.

    The errors are those of products in int8, squared, as shares of the squared products, in the
    mean over all groups of matrices that read one activation.
    """

    num_groups: int
    num_smoothed: int  # the others had no less error by it
    error: float  # before
    smoothed_error: float


class ComponentVerification(msgspec.Struct, frozen=True, kw_only=True):
    """One graph of an image model against its module, on what it was given while it drew."""

    graph: str
    inputs: tuple[tuple[int, ...], ...]  # the shapes of its first input that were compared
    relative_error: float  # ||output - reference|| / ||reference||, the largest of all runs
    max_error: float


class ImageVerification(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled image model against its reference: its components, and pictures of one noise."""

    reference: str  # for example "diffusers 0.42.1 fp32"
    components: tuple[ComponentVerification, ...]
    scheduler: str
    num_inference_steps: int
    sizes: tuple[tuple[int, int], ...]  # height and width of each picture
    mean_psnr: float  # dB; 100 for pictures that are equal
    min_psnr: float
    max_difference: int  # of 255 levels
    seconds: float


class QuantizationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures of an image model in int8 against its own in fp32, of the same noise."""

    psnr_mean: float  # dB; 100 for pictures that are equal
    psnr_min: float
    num_pictures: int
    num_inference_steps: int
    height: int
    width: int
    num_calibration_prompts: int  # pictures that the ranges of activations were measured on
