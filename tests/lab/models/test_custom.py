"""A custom network without data: what is loaded, moved and drawn; one line per mistake."""

import collections
import dataclasses
import sys

import pytest
import torch
from torch import nn

from freezeout.costs import measure_costs
from freezeout.lab.models import CustomModel, build, check_name
from tests.lab.models.loading import CPU, META, NET, load, refused


def test_a_model_alone_gets_an_example_of_the_shape(write):
    write(f"def make(): return {NET}")
    made = load("nets:make", shape="6", batch_size=5)
    assert isinstance(made, CustomModel)
    assert isinstance(made.model, nn.Sequential)
    assert made.example.shape == (5, 6)
    assert made.example.dtype == torch.float32
    assert made.loss is None
    assert made.optimizer is None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_tuple_may_leave_out_its_end(write, count):
    write(f"""
        net = {NET}
        parts = (net, torch.ones(7, 6), torch.sum, torch.optim.SGD(net.parameters(), lr=1.0))
        def make(): return parts[:{count}]
    """)
    made = load("nets:make", shape="6" if count == 1 else None)
    parts = sys.modules["nets"].parts
    assert made.model is parts[0]
    assert made.example.shape == ((2, 6) if count == 1 else (7, 6))
    assert made.loss is (parts[2] if count > 2 else None)
    assert made.optimizer is (parts[3] if count > 3 else None)


def test_later_parts_may_be_none(write):
    write(f"def make(): return {NET}, None, None, None")
    made = load("nets:make", shape="6")
    assert made.example.shape == (2, 6)
    assert (made.loss, made.optimizer) == (None, None)


def test_what_is_loaded_can_be_measured(write):
    write(f"""
        def make():
            net = {NET}
            target = torch.zeros(8, dtype=torch.long)
            return (net, torch.randn(8, 6), lambda y: nn.functional.cross_entropy(y, target),
                    torch.optim.Adam(net.parameters()))
    """)
    made = load("nets:make")
    costs = measure_costs(
        made.model, made.example, loss=made.loss, optimizer=made.optimizer, rounds=1
    )
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
    made = load("nets:make", device=META)
    moved = list(tensors(made.example))
    assert moved
    assert {t.device for t in moved} == {META}
    assert {t.device for t in tensors(example)} == {CPU}
    assert made.model.weight.device == made.loss.weight.device == META
    assert type(made.example) is type(example)
    assert others(made.example) == others(example)


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
    made = load("nets:make")
    held = made.optimizer.param_groups[0]["params"]
    assert [id(p) for p in held] == [id(p) for p in made.model.parameters()]


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
    made = load("nets:make")
    assert isinstance(made.model, nn.DataParallel)
    assert made.example.shape == (2, 3, 8, 8)


# --- Mistakes in the name ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["nets:", ":make", "nets:a..b", "nets:make:1", ".nets:make"],
)
def test_a_name_of_another_form(write, target):
    write(f"def make(): return {NET}")
    message = refused(target, "--model must name a module and, after a colon")
    assert repr(target) in message
    assert message.endswith("Write it as in --model package.module:function.")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pkg.nets.make", "A custom network is named with a colon: 'pkg.nets:make'."),
        ("nets", "the names are densenet"),
        ("", "the names are densenet"),
        ("nets.py", "names a module, not a file, .* Write --model nets:FUNCTION"),
    ],
)
def test_a_name_without_a_colon_is_no_custom_network(name, words):
    for call in (check_name, lambda name: build(name, num_classes=2)):
        with pytest.raises(ValueError, match=words):
            call(name)


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("nets.py:make", "--model nets:make,"),
        ("./models/nets.py:make", "--model models.nets:make,"),
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
    write(
        f"number = 3\nnet = {NET}\ndef make(a, b=1, *c, d, **e): pass\nmax = max"
        "\ndef sized(num_classes, image_size=(8, 8)): pass"
    )
    refused("nets:number", "must be a function that returns the model, got int")
    refused("nets:net", r"is a model already \(Sequential\)")
    refused("nets:make", "is called without arguments, but needs a, d. Give defaults")
    message = refused("nets:sized", "where --data is not given, but needs num_classes")
    assert message.endswith("Give defaults, or add --data.")
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
