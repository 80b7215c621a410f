"""Networks of transformers from their configurations, at toy size; nothing is downloaded."""

from __future__ import annotations

from typing import Any

from torch import nn

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXT = {"vocab_size": 40, "max_position_embeddings": 16}
"""Settings that most architectures share."""


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(num_labels=3, **TEXT, **SIZES))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)
    return ViTForImageClassification(config)


def gpt2(*, tied: bool = True) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    special = {"bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, tie_word_embeddings=tied, **sizes, **special))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, **TEXT, **SIZES))


def mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    experts = {"num_local_experts": 4, "num_experts_per_tok": 1}
    return MixtralForCausalLM(MixtralConfig(num_key_value_heads=1, **TEXT, **SIZES, **experts))


def t5(*, tied: bool = True) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2}
    special = {"decoder_start_token_id": 0, "pad_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=40, **sizes, **special))
    if not tied:  # the configuration knows no such setting; both embeddings stay one
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes: dict[str, Any] = {"d_model": 16, "max_position_embeddings": 16}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 24}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return BartForConditionalGeneration(
        BartConfig(vocab_size=40, tie_word_embeddings=False, **sizes, **special)
    )


def albert() -> nn.Module:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(num_labels=3, embedding_size=8, **TEXT, **SIZES)
    return AlbertForSequenceClassification(config)


def deberta() -> nn.Module:
    """As version 3 has it: relative positions alone, with a norm."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    positions = {"relative_attention": True, "position_buckets": 4, "norm_rel_ebd": "layer_norm"}
    attention = {"position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
    config = DebertaV2Config(
        num_labels=3, share_att_key=True, **positions, **attention, **TEXT, **SIZES
    )
    return DebertaV2ForSequenceClassification(config)


def whisper(*, tied: bool = True) -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes: dict[str, Any] = {"d_model": 16, "num_mel_bins": 8}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 24}
    positions = {"max_source_positions": 10, "max_target_positions": 12}
    special = {"decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return WhisperForConditionalGeneration(
        WhisperConfig(vocab_size=40, tie_word_embeddings=tied, **sizes, **positions, **special)
    )
