"""What is drawn for networks of Hugging Face and timm."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from freezeout.costs import measure_costs
from freezeout.layers import split_layers
from tests.lab.models.loading import load, refused
from tests.layers.real.without_operators import available

# --- Hugging Face: stand-ins -------------------------------------------------------------------


class Text(nn.Module):
    """What tells a Hugging Face text model, without the package."""

    main_input_name = "input_ids"

    def __init__(self, **config):
        super().__init__()
        self.embedding = nn.Embedding(50, 4)
        self.config = SimpleNamespace(**{"vocab_size": 50, **config})

    def forward(self, input_ids, attention_mask=None, labels=None):
        raise NotImplementedError


def text_model(name, **config):
    return type(name, (Text,), {})(**config)


def drawn(model, offer, **options):
    """The example that is drawn for a model."""
    offer(model)
    return load("nets:make", **options).example


@pytest.mark.parametrize(
    "name",
    ["XForCausalLM", "XForMaskedLM", "XForConditionalGeneration", "XForSeq2SeqLM", "XLMHeadModel"],
)
def test_text_is_token_ids_with_labels_of_the_same_shape(offer, name):
    example = drawn(text_model(name), offer, shape="16", batch_size=3)
    assert list(example) == ["input_ids", "attention_mask", "labels"]
    assert {t.shape for t in example.values()} == {(3, 16)}
    assert {t.dtype for t in example.values()} == {torch.int64}
    assert example["attention_mask"].eq(1).all()
    for key in ("input_ids", "labels"):
        assert example[key].min() >= 0
        assert example[key].max() < 50
        assert example[key].unique().numel() > 10
    assert not torch.equal(example["input_ids"], example["labels"])


def test_labels_of_the_classes(offer):
    model = text_model("XForSequenceClassification", num_labels=3)
    labels = drawn(model, offer, shape="4", batch_size=64)["labels"]
    assert labels.shape == (64,)
    assert labels.unique().tolist() == [0, 1, 2]


def test_labels_of_every_token(offer):
    model = text_model("XForTokenClassification", num_labels=3)
    labels = drawn(model, offer, shape="20", batch_size=4)["labels"]
    assert labels.shape == (4, 20)
    assert labels.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"num_labels": 1}, (8,)),
        ({"num_labels": 1, "problem_type": "regression"}, (8,)),
        ({"num_labels": 3, "problem_type": "regression"}, (8, 3)),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, (8, 3)),
        ({"num_labels": 1, "problem_type": "single_label_classification"}, None),
    ],
)
def test_labels_of_other_problems_are_numbers(offer, config, shape):
    model = text_model("XForSequenceClassification", **config)
    labels = drawn(model, offer, shape="4", batch_size=8)["labels"]
    if shape is None:
        assert labels.tolist() == [0] * 8
        return
    assert labels.shape == shape
    assert labels.is_floating_point()
    whole = set(labels.flatten().tolist()) <= {0.0, 1.0}
    assert whole == (config.get("problem_type") == "multi_label_classification")


def test_no_labels_where_their_shape_is_unknown_or_nothing_takes_them(offer):
    class YForCausalLM(Text):
        def forward(self, input_ids):
            raise NotImplementedError

    assert list(drawn(text_model("XModel"), offer)) == ["input_ids", "attention_mask"]
    assert list(drawn(YForCausalLM(), offer)) == ["input_ids"]


@pytest.mark.parametrize(
    ("config", "length"),
    [({}, 128), ({"max_position_embeddings": 20}, 20), ({"max_position_embeddings": 999}, 128)],
)
def test_text_without_input_has_128_tokens_at_most(offer, config, length):
    example = drawn(text_model("XModel", **config), offer)
    assert example["input_ids"].shape == (2, length)


def test_text_takes_one_number_and_no_more_than_its_positions(offer):
    model = text_model("XModel", max_position_embeddings=20)
    assert drawn(model, offer, shape="20")["input_ids"].shape == (2, 20)
    refused("nets:make", "XModel takes at most 20 tokens .*, got --input 21", shape="21")
    refused("nets:make", "must be one number of tokens, got 3x4", shape="3x4")


def test_ids_with_a_meaning_of_their_own_are_left_out(offer):
    special = {
        "pad_token_id": 0,
        "eos_token_id": [1, 2],
        "image_token_id": 49,
        "bos_token_id": None,
    }
    ids = drawn(text_model("XModel", **special), offer, shape="128", batch_size=32)["input_ids"]
    assert ids.unique().tolist() == list(range(3, 49))


def test_a_vocabulary_of_nothing_else_is_used_all_the_same(offer):
    model = text_model("XModel", vocab_size=2, pad_token_id=0, eos_token_id=1)
    assert drawn(model, offer)["input_ids"].unique().tolist() == [0, 1]


def test_encoder_and_decoder(offer):
    class Bare(Text):
        def forward(self, input_ids, decoder_input_ids=None):
            raise NotImplementedError

    config = {"is_encoder_decoder": True, "eos_token_id": 1}
    example = drawn(text_model("XForConditionalGeneration", **config), offer, shape="9")
    assert list(example) == ["input_ids", "attention_mask", "labels"]
    assert example["input_ids"].eq(1).sum(1).tolist() == [1, 1]
    assert example["input_ids"][:, -1].tolist() == [1, 1]
    example = drawn(Bare(**config), offer, shape="9")
    assert list(example) == ["input_ids", "decoder_input_ids"]
    assert example["decoder_input_ids"].shape == (2, 9)
    assert list(drawn(Bare(), offer)) == ["input_ids"]


def test_a_config_alone_makes_no_text_model(offer):
    model = nn.Linear(6, 2)
    model.config = SimpleNamespace(vocab_size=50, image_size=32)
    assert drawn(model, offer, shape="6").is_floating_point()
    refused("nets:make", "nothing tells the shape of an input of Linear")


class Images(nn.Module):
    main_input_name = "pixel_values"

    def __init__(self, **config):
        super().__init__()
        self.layer = nn.Linear(2, 2).double()
        self.config = SimpleNamespace(**config)

    def forward(self, pixel_values, labels=None):
        raise NotImplementedError


class ImagesForImageClassification(Images):
    pass


@pytest.mark.parametrize(
    ("config", "text", "shape"),
    [
        ({"image_size": 8}, None, (2, 3, 8, 8)),
        ({"image_size": [6, 8], "num_channels": 1}, None, (2, 1, 6, 8)),
        ({"image_size": 8}, "3x10x12", (2, 3, 10, 12)),
        ({}, "3x10x12", (2, 3, 10, 12)),
    ],
)
def test_images(offer, config, text, shape):
    example = drawn(Images(**config), offer, shape=text)
    assert list(example) == ["pixel_values"]
    assert example["pixel_values"].shape == shape
    assert example["pixel_values"].dtype == torch.float64


def test_labels_of_images(offer):
    model = ImagesForImageClassification(image_size=4, num_labels=3)
    example = drawn(model, offer, batch_size=64)
    assert list(example) == ["pixel_values", "labels"]
    assert example["labels"].shape == (64,)
    assert example["labels"].unique().tolist() == [0, 1, 2]


def test_images_of_unknown_size(offer):
    offer(Images())
    refused("nets:make", "nothing tells the shape of an input of Images")


# --- timm: a stand-in, and the package ---------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "shape"),
    [
        ({"default_cfg": {"input_size": (3, 24, 24)}}, (2, 3, 24, 24)),
        ({"pretrained_cfg": {"input_size": [3, 16, 16]}}, (2, 3, 16, 16)),
        (
            {"pretrained_cfg": {"input_size": (3, 16, 16)}, "default_cfg": {"input_size": (1,)}},
            (2, 3, 16, 16),
        ),
        ({"pretrained_cfg": {}, "default_cfg": {"input_size": (3, 24, 24)}}, (2, 3, 24, 24)),
    ],
)
def test_timm_models_tell_their_shape(offer, facts, shape):
    model = nn.Linear(6, 2)
    for name, value in facts.items():
        setattr(model, name, value)
    assert drawn(model, offer).shape == shape
    assert drawn(model, offer, shape="6").shape == (2, 6)


def test_real_timm(write):
    reason = available()
    if reason is not None:
        pytest.skip(reason)
    write("import timm\ndef make(): return timm.create_model('resnet10t')")
    made = load("nets:make")
    assert made.example.shape == (2, 3, 176, 176)
    assert made.model(made.example).shape == (2, 1000)


# --- Hugging Face: the package -----------------------------------------------------------------

TINY = {
    "bert": """
        transformers.BertForSequenceClassification(transformers.BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=24, num_labels=3))""",
    "gpt2": """
        transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=24, bos_token_id=1,
            eos_token_id=2))""",
    "t5": """
        transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            decoder_start_token_id=0))""",
    "bart": """
        transformers.BartForSequenceClassification(transformers.BartConfig(
            vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, max_position_embeddings=24, num_labels=3))""",
    "vit": """
        transformers.ViTForImageClassification(transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            image_size=16, patch_size=8, num_labels=3))""",
}
TEXT = ["input_ids", "attention_mask", "labels"]


@pytest.mark.filterwarnings("default")  # those of a foreign package are not ours to fix
@pytest.mark.parametrize(
    ("name", "keys", "shape", "labels"),
    [
        ("bert", TEXT, (2, 24), (2,)),
        ("gpt2", TEXT, (2, 24), (2, 24)),
        ("t5", TEXT, (2, 128), (2, 128)),
        ("bart", TEXT, (2, 24), (2,)),
        ("vit", ["pixel_values", "labels"], (2, 3, 16, 16), (2,)),
    ],
)
def test_real_transformers(write, name, keys, shape, labels):
    pytest.importorskip("transformers")
    made = " ".join(TINY[name].split())
    write(f"import transformers\ndef make(): return {made}")
    made = load("nets:make")
    assert list(made.example) == keys
    assert made.example[keys[0]].shape == shape
    assert made.example["labels"].shape == labels
    loss = made.model(**made.example).loss
    assert torch.isfinite(loss)
    layers = split_layers(made.model, example=made.example)
    costs = measure_costs(made.model, made.example, layers=layers, rounds=1)
    assert costs.batch_size == 2
    # T5 trains its embedding to the end, so nothing leaves the backward pass but weight gradients;
    # frozen attention then takes a kernel that computes a part of it twice.
    assert costs.step_flops(len(costs) - 1) < (1.1 if name == "t5" else 1.0) * costs.step_flops()
