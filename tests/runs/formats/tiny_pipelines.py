"""Seeded text-to-image pipelines of a few thousand weights, made with the classes of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

WORDS = ("a", "b", "red", "blue", "dot", "square", "of", "sks", "in", "the")
SIDE = 32  # of images, with an autoencoder that halves them; Sana takes multiples of 32


def clip_tokenizer(length: int = 12) -> Any:
    """Whole words and single letters; a text has at most `length` tokens."""
    letters = sorted({c for w in WORDS for c in w} | set("abcdefghijklmnopqrstuvwxyz"))
    pieces = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer({p: i for i, p in enumerate(pieces)}, [], model_max_length=length)


def clip_config(tokenizer: Any, width: int, projection: int = 8) -> Any:
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=int(tokenizer.model_max_length),
        projection_dim=projection,
        pad_token_id=tokenizer.pad_token_id,
        **ends,
    )


def kl(channels: int = 4, shift: float | None = None) -> Any:
    """An autoencoder of factor 2."""
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=0.6,
        shift_factor=shift,
    )


def unet(width: int, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion(**schedule: Any) -> Any:
    tokenizer = clip_tokenizer()
    scheduler = diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, **schedule)
    return diffusers.StableDiffusionPipeline(
        vae=kl(),
        text_encoder=transformers.CLIPTextModel(clip_config(tokenizer, 16)),
        tokenizer=tokenizer,
        unet=unet(16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def t5_tokenizer() -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *letters, *(f"\u2581{w}" for w in WORDS)]
    pieces = list(dict.fromkeys(pieces))
    return transformers.T5Tokenizer([(p, -float(i)) for i, p in enumerate(pieces)], extra_ids=0, model_max_length=512)


def t5(tokenizer: Any, width: int) -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2
        )
    )


def stable_diffusion_xl() -> Any:
    first, second = clip_tokenizer(), clip_tokenizer()
    return diffusers.StableDiffusionXLPipeline(
        vae=kl(),
        text_encoder=transformers.CLIPTextModel(clip_config(first, 16)),
        tokenizer=first,
        text_encoder_2=transformers.CLIPTextModelWithProjection(clip_config(second, 16)),
        tokenizer_2=second,
        unet=unet(
            32,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=8 + 6 * 4,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
    )


def stable_diffusion_3() -> Any:
    first, second, third = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=SIDE // 2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=16,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(shift=0.06),
        text_encoder=transformers.CLIPTextModelWithProjection(clip_config(first, 16)),
        tokenizer=first,
        text_encoder_2=transformers.CLIPTextModelWithProjection(clip_config(second, 16)),
        tokenizer_2=second,
        text_encoder_3=t5(third, 32),
        tokenizer_3=third,
    )


def flux() -> Any:
    first, second = clip_tokenizer(), t5_tokenizer()
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=kl(shift=0.06),
        text_encoder=transformers.CLIPTextModel(clip_config(first, 16)),
        tokenizer=first,
        text_encoder_2=t5(second, 32),
        tokenizer_2=second,
    )


def sana() -> Any:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = transformers.GemmaTokenizer({p: i for i, p in enumerate(pieces)}, [])
    sizes = {"attention_head_dim": 2, "scaling_factor": 0.4, "downsample_block_type": "conv"}
    blocks = ("ResBlock", "EfficientViTBlock")
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.Gemma2Model(
            transformers.Gemma2Config(
                vocab_size=len(tokenizer),
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=8,
            )
        ),
        vae=diffusers.AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            upsample_block_type="interpolate",
            **sizes,
        ),
        transformer=diffusers.SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=8,
            sample_size=SIDE // 2,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    )


def z_image() -> Any:
    pieces = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", "<|endoftext|>"]
    tokenizer = transformers.Qwen2Tokenizer({p: i for i, p in enumerate(pieces)}, [])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %} a"
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(shift=0.06),
        text_encoder=transformers.Qwen3Model(
            transformers.Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=8,
            )
        ),
        tokenizer=tokenizer,
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        ),
    )


def qwen_image() -> Any:
    pieces = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", "<|endoftext|>"]
    tokenizer = transformers.Qwen2Tokenizer({p: i for i, p in enumerate(pieces)}, [])
    sizes = {"hidden_size": 16, "intermediate_size": 16}
    text = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    ids = {f"{k}_token_id": 0 for k in ("image", "video", "vision_start", "vision_end", "vision")}
    return diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, 0.0, -0.1, 0.2],
            latents_std=[1.5, 2.0, 1.0, 0.5],
        ),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(
                text_config={**sizes, **text, "rope_parameters": rope, "rope_scaling": rope},
                vision_config={**sizes, "depth": 1, "num_heads": 2, "out_hidden_size": 16},
                **{k: v + len(tokenizer) - 1 for k, v in ids.items()},
            )
        ),
        tokenizer=tokenizer,
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
    )


def flux2_klein() -> Any:
    pieces = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", "<|endoftext|>"]
    tokenizer = transformers.Qwen2Tokenizer({p: i for i, p in enumerate(pieces)}, [])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %} a"
    autoencoder = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    autoencoder.bn.running_mean.copy_(torch.linspace(-0.3, 0.3, 16))
    autoencoder.bn.running_var.copy_(torch.linspace(0.2, 2.0, 16))
    return diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder,
        text_encoder=transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=4,
                intermediate_size=8,
                num_hidden_layers=28,  # the states after layers 9, 18 and 27 are read
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=2,
            )
        ),
        tokenizer=tokenizer,
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "FluxPipeline": flux,
    "SanaPipeline": sana,
    "ZImagePipeline": z_image,
    "QwenImagePipeline": qwen_image,
    "Flux2KleinPipeline": flux2_klein,
}


def saved(folder: Path, kind: str) -> Path:
    """The folder of a pipeline with random weights, as diffusers writes it."""
    torch.manual_seed(0)
    pipe = PIPELINES[kind]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            for p in part.parameters():  # output layers begin with zeros
                if not bool(p.any()):
                    torch.nn.init.normal_(p, std=0.1)
    pipe.save_pretrained(folder)
    return folder
