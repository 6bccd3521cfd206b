"""Tiny random pipelines in the layouts of Stable Diffusion and FLUX, made with diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

VOCAB_SIZE = 300
EOS_TOKEN_ID = VOCAB_SIZE - 1

TEXT_ENCODER = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": VOCAB_SIZE - 2,
    "eos_token_id": 2,
}
UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "sample_size": 16,
}
VAE = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
    "layers_per_block": 2,
    "sample_size": 32,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
V2_TEXT_ENCODER = TEXT_ENCODER | {
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "eos_token_id": EOS_TOKEN_ID,
}
V2_UNET = UNET | {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": [2, 4, 8],
    "use_linear_projection": True,
    "layers_per_block": 1,
}
XL_TEXT_ENCODER_2 = V2_TEXT_ENCODER | {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "projection_dim": 24,
}
XL_UNET = UNET | {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": [2, 4, 8],
    "transformer_layers_per_block": [1, 2, 3],
    "use_linear_projection": True,
    "layers_per_block": 1,
    "cross_attention_dim": 32 + 48,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
}
T5 = {
    "vocab_size": VOCAB_SIZE,
    "d_model": 64,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}
SD3_TEXT_ENCODER = TEXT_ENCODER | {"projection_dim": 16}
SD3_TEXT_ENCODER_2 = V2_TEXT_ENCODER | {"hidden_size": 16, "projection_dim": 8}
SD3 = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 16 + 8,
    "pos_embed_max_size": 17,
}
SD35 = SD3 | {"num_layers": 3, "qk_norm": "rms_norm", "dual_attention_layers": [0, 1]}
FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 32,
    "axes_dims_rope": [4, 4, 8],
}
FLOW_VAE = VAE | {
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
}
T5_LENGTH = 24


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that let every path matter: no norm is neutral, no layer fades out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # a bias, or the weight of a norm
                parameter.copy_(0.2 * noise + name.endswith("weight"))
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return module.eval()


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    tokens = [chr(code) for code in range(33, 33 + VOCAB_SIZE - 2)]
    vocab = {token: index for index, token in enumerate(tokens)}
    vocab |= {"<|startoftext|>": VOCAB_SIZE - 2, "<|endoftext|>": EOS_TOKEN_ID}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder)


def make_sd15(folder: Path) -> Path:
    return _make_stable_diffusion(folder, TEXT_ENCODER, UNET, DDIMScheduler(**SCHEDULER))


def make_sd21(folder: Path) -> Path:
    scheduler = DDIMScheduler(prediction_type="v_prediction", **SCHEDULER)
    return _make_stable_diffusion(folder, V2_TEXT_ENCODER, V2_UNET, scheduler)


def _make_stable_diffusion(folder, text_encoder, unet, scheduler) -> Path:
    StableDiffusionPipeline(
        vae=randomize(AutoencoderKL(**VAE)),
        text_encoder=randomize(CLIPTextModel(CLIPTextConfig(**text_encoder))),
        tokenizer=make_tokenizer(folder.with_name(f"{folder.name}-tokenizer")),
        unet=randomize(UNet2DConditionModel(**unet)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_sdxl(folder: Path) -> Path:
    tokenizer = make_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    config = CLIPTextConfig(**XL_TEXT_ENCODER_2)
    StableDiffusionXLPipeline(
        vae=randomize(AutoencoderKL(**VAE, scaling_factor=0.13025)),
        text_encoder=randomize(CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))),
        text_encoder_2=randomize(CLIPTextModelWithProjection(config)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=randomize(UNet2DConditionModel(**XL_UNET)),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def make_t5_tokenizer() -> PreTrainedTokenizerFast:
    """Letters and words behind a mark, the likeliest split of a text, an end and no start."""
    words = ["red", "circle", "blurred", "photo", "blue", "star"]
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in words] + [(letter, -5.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=T5_LENGTH,
    )


def make_t5(**changes) -> T5EncoderModel:
    config = T5Config(**T5 | changes)
    encoder = randomize(T5EncoderModel(config))
    with torch.no_grad():  # T5 does not scale its scores: its weights do
        for block in encoder.encoder.block:
            block.layer[0].SelfAttention.q.weight *= config.d_kv**-0.5
    return encoder


def make_sd3(folder: Path) -> Path:
    return _make_sd3(folder, SD3, make_t5())


def make_sd35(folder: Path) -> Path:
    """Without T5, which a checkpoint may leave out."""
    return _make_sd3(folder, SD35, None)


def _make_sd3(folder, transformer, text_encoder_3) -> Path:
    tokenizer = make_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    encoders = [
        randomize(CLIPTextModelWithProjection(CLIPTextConfig(**config)))
        for config in (SD3_TEXT_ENCODER, SD3_TEXT_ENCODER_2)
    ]
    StableDiffusion3Pipeline(
        transformer=randomize(SD3Transformer2DModel(**transformer)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=randomize(AutoencoderKL(**FLOW_VAE)),
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=text_encoder_3,
        tokenizer_3=None if text_encoder_3 is None else make_t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def make_flux_dev(folder: Path) -> Path:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return _make_flux(folder, FLUX | {"guidance_embeds": True}, scheduler)


def make_flux_schnell(folder: Path) -> Path:
    return _make_flux(folder, FLUX, FlowMatchEulerDiscreteScheduler(shift=1.0))


def _make_flux(folder, transformer, scheduler) -> Path:
    FluxPipeline(
        transformer=randomize(FluxTransformer2DModel(**transformer)),
        scheduler=scheduler,
        vae=randomize(AutoencoderKL(**FLOW_VAE)),
        text_encoder=randomize(CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))),
        tokenizer=make_tokenizer(folder.with_name(f"{folder.name}-tokenizer")),
        text_encoder_2=make_t5(),
        tokenizer_2=make_t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


PIPELINES = {
    "sd15": make_sd15,
    "sd21": make_sd21,
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "sd3.5": make_sd35,
    "flux-dev": make_flux_dev,
    "flux-schnell": make_flux_schnell,
}
