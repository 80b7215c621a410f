"""The user's own network by name: what is loaded, what is drawn for it, one line per mistake."""

import collections
import dataclasses
import re
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from freezeout.cli.own import Own, load_own
from freezeout.cost import measure_costs
from freezeout.errors import RunError
from freezeout.layers import split_layers

CPU = torch.device("cpu")
META = torch.device("meta")  # stands in for an accelerator: everything can be moved there


def load(target, *, shape=None, batch_size=2, device=CPU, seed=1):
    return load_own(target, shape=shape, batch_size=batch_size, device=device, seed=seed)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module into the current folder, which is empty and in no path."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)

    def write(source, file="nets.py"):
        place = tmp_path / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(source))

    yield write
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def offer(monkeypatch):
    """Makes a module ``nets`` whose function returns a value made by the test."""

    def offer(value):
        module = ModuleType("nets")
        module.make = lambda: value
        monkeypatch.setitem(sys.modules, "nets", module)

    return offer


def refused(target, words, **options):
    """The complaint, which is one line with these words in it."""
    path = list(sys.path)
    with pytest.raises(RunError) as caught:
        load(target, **options)
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message
    assert sys.path == path
    return message


# --- What a factory may be and return ----------------------------------------------------------

NET = "nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))"


def test_a_model_alone_gets_an_example_of_the_shape(write):
    write(f"def make(): return {NET}")
    own = load("nets:make", shape="6", batch_size=5)
    assert isinstance(own, Own)
    assert isinstance(own.model, nn.Sequential)
    assert own.example.shape == (5, 6)
    assert own.example.dtype == torch.float32
    assert own.loss is None
    assert own.optimizer is None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_tuple_may_leave_out_its_end(write, count):
    write(f"""
        net = {NET}
        parts = (net, torch.ones(7, 6), torch.sum, torch.optim.SGD(net.parameters(), lr=1.0))
        def make(): return parts[:{count}]
    """)
    own = load("nets:make", shape="6" if count == 1 else None)
    parts = sys.modules["nets"].parts
    assert own.model is parts[0]
    assert own.example.shape == ((2, 6) if count == 1 else (7, 6))
    assert own.loss is (parts[2] if count > 2 else None)
    assert own.optimizer is (parts[3] if count > 3 else None)


def test_later_parts_may_be_none(write):
    write(f"def make(): return {NET}, None, None, None")
    own = load("nets:make", shape="6")
    assert own.example.shape == (2, 6)
    assert (own.loss, own.optimizer) == (None, None)


def test_what_is_loaded_can_be_measured(write):
    write(f"""
        def make():
            net = {NET}
            target = torch.zeros(8, dtype=torch.long)
            return (net, torch.randn(8, 6), lambda y: nn.functional.cross_entropy(y, target),
                    torch.optim.Adam(net.parameters()))
    """)
    own = load("nets:make")
    costs = measure_costs(own.model, own.example, loss=own.loss, optimizer=own.optimizer, rounds=1)
    assert costs.batch_size == 8
    assert costs.layers[0].state_bytes > 2 * costs.layers[0].parameter_bytes


def test_dots_reach_into_classes_and_packages(write):
    write("", "pkg/__init__.py")
    write(
        f"""
        class Zoo:
            class Small:
                @staticmethod
                def make(): return {NET}
        class Net(nn.Linear):
            def __init__(self, width=6): super().__init__(width, 2)
        """,
        "pkg/zoo.py",
    )
    assert isinstance(load("pkg.zoo:Zoo.Small.make", shape="6").model, nn.Sequential)
    assert load("pkg.zoo:Net", shape="6").model.weight.shape == (2, 6)


def test_the_seed_decides_weights_and_example(write):
    write("def make(): return nn.Linear(6, 2)")
    one, same, other = (load("nets:make", shape="6", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.model.weight, same.model.weight)
    assert torch.equal(one.example, same.example)
    assert not torch.equal(one.model.weight, other.model.weight)
    assert not torch.equal(one.example, other.example)
    torch.manual_seed(1)
    assert torch.equal(one.model.weight, nn.Linear(6, 2).weight)


def test_the_current_folder_comes_first_and_only_meanwhile(write, tmp_path):
    write("raise RuntimeError('the wrong one')", "elsewhere/nets.py")
    write("def size(): return 6", "late.py")
    write("""
        import sys
        sys.path.append("of its own")
        def make():
            from late import size
            return nn.Linear(size(), 2)
    """)
    before = list(sys.path)
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    try:
        assert load("nets:make", shape="6").model.in_features == 6
        assert sys.path == [str(tmp_path / "elsewhere"), *before, "of its own"]
    finally:
        sys.path[:] = before


def test_a_folder_that_was_in_the_path_stays_there(write, tmp_path, monkeypatch):
    write("def make(): return nn.Linear(6, 2)")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path), *sys.path])
        before = list(sys.path)
        load("nets:make", shape="6")
        assert sys.path == before


# --- Moving to the device ----------------------------------------------------------------------

Pair = collections.namedtuple("Pair", ["left", "right"])


@dataclasses.dataclass(frozen=True)
class Batch:
    x: torch.Tensor
    rest: list
    name: str = "batch"


class MovesItself(collections.UserDict):
    """As Hugging Face's BatchEncoding."""

    def to(self, device):
        return MovesItself({k: v.to(device) for k, v in self.items()})


@pytest.mark.parametrize(
    "example",
    [
        torch.ones(2),
        (torch.ones(2), 3, None),
        {"x": torch.ones(2), "more": [torch.ones(1), "word"], "flag": True},
        Pair(torch.ones(2), 1),
        Batch(torch.ones(2), [torch.ones(1), 2]),
        MovesItself(x=torch.ones(2)),
    ],
    ids=lambda e: type(e).__name__,
)
def test_model_example_and_loss_are_moved(offer, example):
    net = nn.Linear(2, 2)
    offer((net, example, nn.CrossEntropyLoss(torch.ones(2))))
    own = load("nets:make", device=META)
    moved = list(tensors(own.example))
    assert moved
    assert {t.device for t in moved} == {META}
    assert {t.device for t in tensors(example)} == {CPU}
    assert own.model.weight.device == own.loss.weight.device == META
    assert type(own.example) is type(example)
    assert others(own.example) == others(example)


def values(value):
    if isinstance(value, Batch):
        value = (value.x, value.rest, value.name)
    if isinstance(value, (dict, collections.UserDict)):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from values(item)
    else:
        yield value


def others(value):
    return [item for item in values(value) if not isinstance(item, torch.Tensor)]


def tensors(value):
    return (item for item in values(value) if isinstance(item, torch.Tensor))


def test_an_example_drawn_here_is_moved_too(write):
    write("def make(): return nn.Linear(6, 2)")
    assert load("nets:make", shape="6", device=META).example.device == META


def test_an_optimizer_made_before_the_move_stays_right(write):
    write("""
        def make():
            net = nn.Linear(6, 2).double()
            return net, torch.ones(1, 6).double(), None, torch.optim.SGD(net.parameters(), lr=1.0)
    """)
    own = load("nets:make")
    held = own.optimizer.param_groups[0]["params"]
    assert [id(p) for p in held] == [id(p) for p in own.model.parameters()]


def test_a_model_that_cannot_be_moved(write):
    write("""
        class Net(nn.Linear):
            def __init__(self): super().__init__(6, 2)
            def to(self, device): raise ValueError("stuck\\nhere")
    """)
    refused("nets:Net", r"cannot be moved to cpu: ValueError: stuck\. Choose", shape="6")


# --- Shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape"),
    [("3x4x5", (2, 3, 4, 5)), ("16", (2, 16)), (" 3X4 ", (2, 3, 4))],
)
def test_input_is_the_shape_without_the_batch(write, text, shape):
    write("def make(): return nn.Linear(6, 2)")
    example = load("nets:make", shape=text).example
    assert example.shape == shape
    assert example.unique().numel() > 10
    assert abs(example.mean()) < 0.7


@pytest.mark.parametrize(
    "text", ["", "x", "3x", "3x-1x4", "0x4", "3,4", "3.5", "³", "big", "3x4 5", "9" * 5000]
)
def test_input_that_is_no_shape(write, text):
    write("raise RuntimeError('bad input is told before anything is imported')")
    refused("nets:make", r"^--input must be .*, got '.*Write --input 3x224x224", shape=text)


def test_input_that_no_memory_holds(write):
    write("def make(): return nn.Linear(6, 2)")
    refused("nets:make", "cannot be made: .*smaller", shape="x".join(["999999999"] * 3))


def test_random_numbers_have_the_precision_of_the_model(write):
    write("def make(): return nn.Sequential(nn.Linear(6, 2)).bfloat16()")
    assert load("nets:make", shape="6").example.dtype == torch.bfloat16


def test_nothing_tells_the_shape(write):
    write("def make(): return nn.Linear(6, 2)")
    message = refused("nets:make", "nothing tells the shape of an input of Linear")
    assert "Return (model, example) from the function, or give --input CxHxW" in message


def test_input_beside_an_example(write):
    write("def make(): return nn.Linear(6, 2), torch.ones(2, 6)")
    refused("nets:make", "--input 6 was given, but nets:make returns an example", shape="6")


def test_a_wrapped_model_is_looked_into(write):
    write("""
        class Net(nn.Linear):
            default_cfg = {"input_size": (3, 8, 8)}
        def make(): return nn.DataParallel(Net(8, 2))
    """)
    own = load("nets:make")
    assert isinstance(own.model, nn.DataParallel)
    assert own.example.shape == (2, 3, 8, 8)


# --- Mistakes in the name ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("nets", "--import package.module:function"),
        ("pkg.nets.make", "--import pkg.nets:make"),
        ("nets:", "--import package.module:function"),
        (":make", "--import package.module:function"),
        ("", "--import package.module:function"),
        ("nets:a..b", "--import package.module:function"),
        ("nets:make:1", "--import package.module:function"),
        (".nets:make", "--import package.module:function"),
    ],
)
def test_a_name_of_another_form(write, target, advice):
    write(f"def make(): return {NET}")
    message = refused(target, "after a colon")
    assert repr(target) in message
    assert message.endswith(f"Write it as in {advice}.")


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("nets.py:make", "--import nets:make,"),
        ("./models/nets.py:make", "--import models.nets:make,"),
        ("nets.py", "--import nets:FUNCTION,"),
    ],
)
def test_a_file_in_place_of_a_module(write, target, advice):
    assert advice in refused(target, "names a module, not a file")


@pytest.mark.parametrize("target", ["nots:make", "nots.deep:make", "pkg.nots:make", "nets.no:make"])
def test_a_module_that_is_not_there(write, tmp_path, target):
    write(f"def make(): return {NET}")
    write("", "pkg/__init__.py")
    message = refused(target, r"^no module named '(nots|pkg\.nots|nets\.no)' was found")
    assert str(tmp_path) in message
    assert "Run freezeout in the folder that holds it" in message


@pytest.mark.parametrize("missing", ["no_such_package", "no_such_package.sub", "pkg.other"])
def test_an_import_inside_the_module_that_fails(write, missing):
    write("", "pkg/__init__.py")
    write(f"import {missing}", "pkg/nets.py")
    named = missing if missing.startswith("pkg") else "no_such_package"
    message = refused("pkg.nets:make", f"importing pkg.nets failed: it needs '{named}'")
    assert sys.prefix in message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from torch import no_such_name", "failed: ImportError: cannot import name 'no_such_name"),
        ("def make(:", "failed: SyntaxError: "),
        ("raise ValueError('one\\ntwo')", r"failed: ValueError: one\. See where: python -c"),
        ("raise ValueError", r"failed: ValueError\. See"),
        ("raise SystemExit(2)", "importing nets ended the program.*__main__"),
        ("raise ModuleNotFoundError('odd')", "failed: ModuleNotFoundError: odd"),
    ],
)
def test_a_module_that_fails(write, source, words):
    write(source)
    refused("nets:make", words)


def test_a_name_that_is_not_in_the_module(write):
    write(f"def make_net(): return {NET}\nclass Zoo:\n    def build(): pass")
    assert refused("nets:make_nte", "module nets has no 'make_nte'").endswith(
        "Did you mean 'make_net'?"
    )
    assert refused("nets:qqqq", "has no 'qqqq'").endswith("Name what makes the model.")
    assert refused("nets:Zoo.biuld", "nets:Zoo has no 'biuld'").endswith("Did you mean 'build'?")


def test_a_package_that_fails_to_look_up_a_name(write):
    write("def __getattr__(name):\n    raise ImportError(f'{name} needs more')")
    refused("nets:make", "looking up nets:make failed: ImportError: make needs more")


def test_what_is_no_function(write):
    write(f"number = 3\nnet = {NET}\ndef make(a, b=1, *c, d, **e): pass\nmax = max")
    refused("nets:number", "must be a function that returns the model, got int")
    refused("nets:net", r"is a model already \(Sequential\)")
    refused("nets:make", "is called without arguments, but needs a, d. Give defaults")
    refused("nets:max", "calling nets:max failed: TypeError: max expected")


# --- Mistakes in what it does ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('one\\ntwo')", r"nets:make failed: ValueError: one\. .*nets\.make\(\)"),
        ("import no_such_package", "calling nets:make failed: it needs 'no_such_package'"),
        ("raise SystemExit", "calling nets:make ended the program"),
        ("return None", "must return a torch.nn.Module .*, got None"),
        ("return nn.Linear", "must return a torch.nn.Module .*, got the class Linear"),
        ("return [nn.Linear(1, 1)]", "must return a torch.nn.Module .*, got list"),
        ("return torch.ones(1), nn.Linear(1, 1)", "Module first in its tuple .*, got Tensor"),
        ("return ()", "got a tuple of 0"),
        ("return (nn.Linear(1, 1),) * 5", "got a tuple of 5"),
        ("return nn.Linear(1, 1), 'x'", "the example that .* must hold tensors, got str"),
        ("return nn.Linear(1, 1), {'x': [1]}", "must hold tensors, got dict"),
        ("return nn.Linear(1, 1), torch.ones(1), 3", "the loss that .*, got int"),
        ("return nn.Linear(1, 1), torch.ones(1), None, 'Adam'", "the optimizer that .*, got str"),
        (
            "return nn.Linear(1, 1), torch.ones(1), None, torch.optim.SGD",
            "the optimizer that .*, got the class SGD",
        ),
    ],
)
def test_a_function_that_fails(write, source, words):
    write(f"def make():\n    {source}")
    refused("nets:make", words)


def test_ctrl_c_is_no_mistake(write):
    write("def make(): raise KeyboardInterrupt")
    before = list(sys.path)
    with pytest.raises(KeyboardInterrupt):
        load("nets:make")
    assert sys.path == before


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
    pytest.importorskip("timm", exc_type=ImportError)
    write("import timm\ndef make(): return timm.create_model('resnet10t')")
    own = load("nets:make")
    assert own.example.shape == (2, 3, 176, 176)
    assert own.model(own.example).shape == (2, 1000)


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


@pytest.mark.filterwarnings("default")  # those of a foreign package are not ours to mend
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
    own = load("nets:make")
    assert list(own.example) == keys
    assert own.example[keys[0]].shape == shape
    assert own.example["labels"].shape == labels
    loss = own.model(**own.example).loss
    assert torch.isfinite(loss)
    layers = split_layers(own.model, example=own.example)
    costs = measure_costs(own.model, own.example, layers=layers, rounds=1)
    assert costs.batch_size == 2
    # T5 trains its embedding to the end, so nothing leaves the backward pass but weight gradients;
    # frozen attention then takes a kernel that computes a part of it twice.
    assert costs.step_flops(len(costs) - 1) < (1.1 if name == "t5" else 1.0) * costs.step_flops()
