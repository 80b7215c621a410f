"""Language models of transformers, from small configurations."""

from __future__ import annotations

from typing import Any

import torch

from tests.layers.real.from_config import ids, row

__all__ = ["NETWORKS"]

HEADS = {"num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 66}
BERT: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, **HEADS}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT: dict[str, Any] = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64}
GPT |= {"bos_token_id": 1, "eos_token_id": 2}
UNTIED = {"tie_word_embeddings": False}
LLAMA: dict[str, Any] = {**BERT, **ENDS, **UNTIED, "num_key_value_heads": 1}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
BART: dict[str, Any] = {"vocab_size": 99, "d_model": 32, "max_position_embeddings": 64, **ENDS}
for part in ("encoder", "decoder"):
    BART |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 48}
    BART |= {f"{part}_layerdrop": 0.0}
BART |= {"decoder_start_token_id": 1}
T5: dict[str, Any] = {"vocab_size": 99, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2}
T5 |= {"num_heads": 2, "decoder_start_token_id": 0, "pad_token_id": 0}
LED = {key: value for key, value in BART.items() if key != "max_position_embeddings"}
LED |= {f"max_{part}_position_embeddings": 64 for part in ("encoder", "decoder")}


def text() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(12)}


def two_choices() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(12)[:, None].repeat(1, 2, 1), "mc_token_ids": torch.full((2, 2), 11)}


def both() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(12), "decoder_input_ids": ids(8)}


NETWORKS = [
    row("BertForSequenceClassification", BERT, text),
    row("BertForPreTraining", {**BERT, **UNTIED}, text),
    row("BertModel", BERT, text),
    row("RobertaForSequenceClassification", BERT, text),
    row("CamembertForTokenClassification", BERT, text),
    row("XLMRobertaForQuestionAnswering", BERT, text),
    row("DebertaForSequenceClassification", BERT, text),
    row(
        "DebertaV2ForSequenceClassification",
        {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        text,
    ),
    row("AlbertForSequenceClassification", {**BERT, "embedding_size": 16}, text),
    row("ElectraForSequenceClassification", {**BERT, "embedding_size": 16}, text),
    row(
        "DistilBertForSequenceClassification",
        {"vocab_size": 99, "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48},
        text,
    ),
    row("MPNetForSequenceClassification", BERT, text),
    row(
        "FunnelForSequenceClassification",
        {**T5, "block_sizes": [1, 2, 1], "n_head": 2, "d_head": 16, "d_inner": 48},
        text,
    ),
    row(
        "XLNetForSequenceClassification",
        {"vocab_size": 99, "d_model": 32, "n_layer": 3, "n_head": 2, "d_inner": 48},
        text,
    ),
    row("LongformerForSequenceClassification", {**BERT, "attention_window": 8}, text),
    row("BigBirdForSequenceClassification", {**BERT, "attention_type": "original_full"}, text),
    row("FNetForSequenceClassification", BERT, text),
    row("RoFormerForSequenceClassification", {**BERT, "embedding_size": 32}, text),
    row("ConvBertForSequenceClassification", {**BERT, "embedding_size": 16, "head_ratio": 1}, text),
    row("ModernBertForSequenceClassification", {**BERT, **ENDS, "cls_token_id": 1}, text),
    row("GPT2LMHeadModel", {**GPT, **UNTIED}, text),
    row("GPT2DoubleHeadsModel", {**GPT, **UNTIED}, two_choices),
    row("GPTJForCausalLM", {**GPT, "rotary_dim": 8}, text),
    row("GPTNeoXForCausalLM", {**BERT, **ENDS}, text),
    row(
        "OPTForCausalLM",
        {**BERT, **ENDS, **UNTIED, "ffn_dim": 48, "word_embed_proj_dim": 32},
        text,
    ),
    row("BloomForCausalLM", {"vocab_size": 99, "hidden_size": 32, "n_layer": 3, "n_head": 2}, text),
    row("FalconForCausalLM", {**BERT, **ENDS, **UNTIED}, text),
    row("LlamaForCausalLM", LLAMA, text),
    row("LlamaForSequenceClassification", LLAMA, text),
    row("MistralForCausalLM", LLAMA, text),
    row("MixtralForCausalLM", {**LLAMA, "num_local_experts": 4}, text),
    row("Qwen2ForCausalLM", LLAMA, text),
    row("Qwen3ForCausalLM", {**LLAMA, "head_dim": 16}, text),
    row("Qwen3MoeForCausalLM", {**LLAMA, **EXPERTS, "head_dim": 16}, text),
    row("GemmaForCausalLM", {**LLAMA, "head_dim": 16}, text),
    row("Gemma2ForCausalLM", {**LLAMA, "head_dim": 16}, text),
    row("Gemma3ForCausalLM", {**LLAMA, "head_dim": 16}, text),
    row("PhiForCausalLM", {**BERT, **ENDS}, text),
    row("Phi3ForCausalLM", LLAMA, text),
    row("OlmoForCausalLM", LLAMA, text),
    row(
        "MambaForCausalLM",
        {**BERT, **UNTIED, "state_size": 4},
        text,
    ),
    row("RwkvForCausalLM", {**BERT, **UNTIED, "attention_hidden_size": 32}, text),
    row("T5ForConditionalGeneration", T5, both),
    row("T5EncoderModel", T5, text),
    row("BartForConditionalGeneration", BART, both),
    row("MBartForConditionalGeneration", {**BART, **UNTIED}, both),
    row("PegasusForConditionalGeneration", BART, both),
    row("MarianMTModel", {**BART, "decoder_vocab_size": 99}, both),
    row("LEDForConditionalGeneration", {**LED, "attention_window": 8}, both),
]
