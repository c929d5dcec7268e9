"""Tiny text-to-video models with random weights, of diffusers' real classes, shaped as the released ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from components.generator.miniature.architecture import (
    MAX_TOKENS,
    TEXT_WIDTH,
    build_pipeline,
    build_text_encoder,
    build_tokenizer,
)
from components.video.clip import ClipFormat

WORDS = ["a", "red", "blue", "green", "circle", "square", "triangle", "moves", "left", "up"]


@dataclass(frozen=True)
class Tiny:
    """One tiny model: how it is built, and a clip it can make."""

    build: Callable[[], Any]
    geometry: ClipFormat


def _wan_transformer(channels: int = 16) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=channels,
        out_channels=channels, text_dim=TEXT_WIDTH, freq_dim=32, ffn_dim=32, num_layers=2,
        cross_attn_norm=True, rope_max_seq_len=32,
    )  # fmt: skip


def _wan(experts: bool = False) -> Any:
    """Wan 2.1's shape: x4 in time and x8 in space, cross attention, UniPC on flow sigmas as released."""
    tokenizer = build_tokenizer()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        transformer=_wan_transformer(),
        transformer_2=_wan_transformer() if experts else None,
        boundary_ratio=0.875 if experts else None,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip


def _wan_ti2v() -> Any:
    """Wan 2.2 TI2V-5B's shape: x16 in space by patches before a residual VAE, a time for each token."""
    tokenizer = build_tokenizer()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)),
        vae=AutoencoderKLWan(
            base_dim=4, decoder_base_dim=8, z_dim=6, dim_mult=[1, 2, 2, 2], num_res_blocks=1,
            temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12,
            patch_size=2, scale_factor_spatial=16, latents_mean=[0.1, -0.2, 0.3, 0.0, 0.5, -0.6],
            latents_std=[1.0, 0.5, 2.0, 1.5, 0.7, 0.9],
        ),
        transformer=_wan_transformer(6),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        expand_timesteps=True,
    )  # fmt: skip


def _t5(vocabulary: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, dropout_rate=0.0
        )
    )  # fmt: skip


def _cogvideox(scheduler: type, *, rotary: bool, patch_t: int | None, snr_shift: float) -> Any:
    """CogVideoX's shape: x4 in time and x8 in space; the scheduler's config is the released one."""
    tokenizer = build_tokenizer()
    return CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=_t5(len(tokenizer)),
        vae=AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
            temporal_compression_ratio=4, scaling_factor=0.7, invert_scale_latents=patch_t is not None,
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=8,
            text_embed_dim=32, num_layers=2, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
            patch_size_t=patch_t, max_text_seq_length=MAX_TOKENS, use_rotary_positional_embeddings=rotary,
        ),
        scheduler=scheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=snr_shift,
            timestep_spacing="trailing", clip_sample=False,
        ),
    )  # fmt: skip


def _ltx(timed_decoder: bool) -> Any:
    """LTX-Video's shape: x8 in time and x32 in space; 0.9.1's decoder takes a time and adds noise."""
    tokenizer = build_tokenizer()
    vae: Any = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1), scaling_factor=1.5,
        timestep_conditioning=timed_decoder, decoder_inject_noise=(timed_decoder,) * 5,
    )  # fmt: skip
    vae.latents_mean.copy_(vae.latents_mean + 0.2)
    vae.latents_std.copy_(vae.latents_std * 0.8)
    return LTXPipeline(
        tokenizer=tokenizer,
        text_encoder=_t5(len(tokenizer)),
        vae=vae,
        transformer=LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12,
            cross_attention_dim=24, num_layers=2, caption_channels=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
            max_image_seq_len=4096, shift_terminal=0.1,
        ),
    )  # fmt: skip


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """A word tokenizer to which the pipeline's system prompt is as many tokens as it cuts off."""
    special = ["<pad>", "<s>", "<unk>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in special[3:]])
    system = str(DEFAULT_PROMPT_TEMPLATE["template"]).split("{}")[0]
    missing = int(DEFAULT_PROMPT_TEMPLATE["crop_start"]) - len(tokenizer.encode(system).ids)
    assert missing > 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["<s>"] * missing + ["$A"]), special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="<unk>",
        padding_side="right",
    )


def _clip(vocabulary: int, tokens: int, width: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=tokens, eos_token_id=1, pad_token_id=0,
            bos_token_id=None,
        )
    )  # fmt: skip


def _hunyuan(told_guidance: bool) -> Any:
    """HunyuanVideo's shape: dual and single blocks over video and text, x4 in time and x8 in space."""
    tokenizer, tokenizer_2 = llama_tokenizer(), build_tokenizer()
    return HunyuanVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=LlamaModel(
            LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, bos_token_id=1,
                eos_token_id=None,
            )
        ),
        tokenizer_2=tokenizer_2,
        text_encoder_2=_clip(len(tokenizer_2), 77, 16),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
            scaling_factor=0.476986,
        ),
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, text_embed_dim=32, pooled_projection_dim=16,
            rope_axes_dim=(4, 4, 4), guidance_embeds=told_guidance,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )  # fmt: skip


def _modelscope() -> Any:
    """ModelScope's shape: a 3D UNet with attention over time, an image VAE, OpenCLIP's text encoder."""
    tokenizer = build_tokenizer()
    return TextToVideoSDPipeline(
        tokenizer=tokenizer,
        text_encoder=_clip(len(tokenizer), MAX_TOKENS, 32),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.18215,
        ),
        unet=UNet3DConditionModel(
            block_out_channels=(16, 16), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), layers_per_block=1, norm_num_groups=4,
            cross_attention_dim=32, attention_head_dim=8, sample_size=4,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
    )  # fmt: skip


TINY = {
    "miniature": Tiny(lambda: build_pipeline(shift=3.0), ClipFormat(9, 48, 48, 8.0)),
    "wan-2.1": Tiny(_wan, ClipFormat(9, 32, 48, 16.0)),
    "wan-2.2-a14b": Tiny(lambda: _wan(experts=True), ClipFormat(5, 32, 32, 16.0)),
    "wan-2.2-5b": Tiny(_wan_ti2v, ClipFormat(5, 32, 64, 24.0)),
    "cogvideox-2b": Tiny(
        lambda: _cogvideox(CogVideoXDDIMScheduler, rotary=False, patch_t=None, snr_shift=3.0),
        ClipFormat(8, 32, 48, 8.0),
    ),
    "cogvideox-5b": Tiny(
        lambda: _cogvideox(CogVideoXDPMScheduler, rotary=True, patch_t=None, snr_shift=1.0),
        ClipFormat(9, 32, 48, 8.0),
    ),
    "cogvideox-1.5": Tiny(
        lambda: _cogvideox(CogVideoXDPMScheduler, rotary=True, patch_t=2, snr_shift=1.0),
        ClipFormat(9, 16, 32, 16.0),
    ),
    "ltx": Tiny(lambda: _ltx(timed_decoder=False), ClipFormat(9, 64, 96, 24.0)),
    "ltx-0.9.1": Tiny(lambda: _ltx(timed_decoder=True), ClipFormat(9, 64, 64, 30.0)),
    "hunyuan-video": Tiny(lambda: _hunyuan(told_guidance=True), ClipFormat(9, 32, 48, 24.0)),
    "hunyuan-video-undistilled": Tiny(lambda: _hunyuan(told_guidance=False), ClipFormat(5, 32, 32, 24.0)),
    "modelscope": Tiny(_modelscope, ClipFormat(4, 32, 48, 8.0)),
}
