"""Networks of transformers for images, speech and several kinds of input, from small settings."""

from __future__ import annotations

from typing import Any

import torch

from tests.layers.real.from_config import ids, row
from tests.layers.real.network import generator, images

__all__ = ["NETWORKS"]

BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
VIT: dict[str, Any] = {**BLOCKS, "intermediate_size": 48, "image_size": 32, "patch_size": 8}
TEXT: dict[str, Any] = {**BLOCKS, "intermediate_size": 48, "vocab_size": 99}
TEXT |= {"max_position_embeddings": 64}
SWIN: dict[str, Any] = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "window_size": 4}
SWIN |= {"depths": [1, 2, 1], "num_heads": [2, 2, 4]}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
RESNET = {**STAGES, "embedding_size": 8, "layer_type": "basic"}
SEGFORMER = {**STAGES, "num_attention_heads": [1, 2, 2, 2], "decoder_hidden_size": 16}
SPEECH: dict[str, Any] = {**BLOCKS, "intermediate_size": 48, "vocab_size": 30, "layerdrop": 0.0}
SPEECH |= {"conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 8)}
SPEECH |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
SPEECH |= {"apply_spec_augment": False}
DECODERS: dict[str, Any] = {"d_model": 32}
for part in ("encoder", "decoder"):
    DECODERS |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 48}
    DECODERS |= {f"{part}_layerdrop": 0.0}
DETR: dict[str, Any] = {**DECODERS, "use_timm_backbone": False, "use_pretrained_backbone": False}
DETR |= {"backbone": None, "num_queries": 5}
DETR |= {"backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage4"]}}
WHISPER = {**DECODERS, "vocab_size": 99, "num_mel_bins": 8, "max_source_positions": 16}
WHISPER |= {"max_target_positions": 32, "tie_word_embeddings": False, "pad_token_id": 0}
WHISPER |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
CONVNEXT = {"model_type": "convnext", **STAGES}
UPERNET: dict[str, Any] = {"hidden_size": 16, "pool_scales": [1, 2], "auxiliary_in_channels": 24}
UPERNET |= {"backbone_config": {**CONVNEXT, "out_features": [f"stage{i}" for i in range(1, 5)]}}
UPERNET |= {"auxiliary_channels": 8}


def pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": images(32)}


def large() -> dict[str, torch.Tensor]:
    return {"pixel_values": images(64)}


def wave() -> dict[str, torch.Tensor]:
    return {"input_values": torch.randn(2, 800, generator=generator())}


def spectrum() -> dict[str, torch.Tensor]:
    features = torch.randn(2, 8, 32, generator=generator())
    return {"input_features": features, "decoder_input_ids": ids(8)}


def captioned() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(12), **pixels()}


NETWORKS = [
    row("ViTForImageClassification", VIT, pixels),
    row("DeiTForImageClassification", VIT, pixels),
    row("DeiTForImageClassificationWithTeacher", VIT, pixels),
    row("BeitForImageClassification", VIT, pixels),
    row("Dinov2ForImageClassification", VIT, pixels),
    row("SwinForImageClassification", SWIN, pixels),
    row("Swinv2ForImageClassification", SWIN, pixels),
    row("ConvNextForImageClassification", STAGES, pixels),
    row("ConvNextV2ForImageClassification", STAGES, pixels),
    row("ResNetForImageClassification", RESNET, pixels),
    row("RegNetForImageClassification", {**RESNET, "layer_type": "y", "groups_width": 8}, pixels),
    row("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}, pixels),
    row("SegformerForSemanticSegmentation", SEGFORMER, large),
    row("UperNetForSemanticSegmentation", UPERNET, large),
    row("ViTMAEForPreTraining", {**VIT, "decoder_num_hidden_layers": 2}, pixels),
    row("DetrForObjectDetection", DETR, large),
    row(
        "YolosForObjectDetection",
        {**VIT, "image_size": [32, 32], "num_detection_tokens": 5},
        pixels,
    ),
    row(
        "CLIPModel",
        {"text_config": TEXT, "vision_config": VIT, "projection_dim": 16},
        captioned,
    ),
    row("SiglipModel", {"text_config": TEXT, "vision_config": VIT}, captioned),
    row("ViltForQuestionAnswering", {**TEXT, **VIT}, captioned),
    row("WhisperForConditionalGeneration", WHISPER, spectrum),
    row("Wav2Vec2ForCTC", SPEECH, wave),
    row("Wav2Vec2ForSequenceClassification", SPEECH, wave),
    row("HubertForCTC", SPEECH, wave),
    row("WavLMForCTC", SPEECH, wave),
    row("SEWForCTC", {**SPEECH, "squeeze_factor": 2}, wave),
    row("Data2VecAudioForCTC", SPEECH, wave),
]
