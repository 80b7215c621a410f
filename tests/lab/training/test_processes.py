"""Training in several processes: the result of one, and exact resume."""

import itertools
import re
import shutil

import pytest
import torch

from freezeout.lab.data import TensorLoader, load
from freezeout.lab.training import RunFolder, resume, start
from freezeout.lab.training.checkpoint import load_checkpoint
from tests.lab.runs import KillAt, KilledError, assert_same_end
from tests.lab.training.close_ends import assert_close_end, events
from tests.lab.training.several_jobs import job, uneven
from tests.wrappers.ranks import joined

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def pair():
    """Two processes that train together, and go from one job to the next."""
    with joined(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def two(pair, place):
    """The same run in two."""
    assert pair.run(job, "whole", place) == [(15, False)] * 2
    return RunFolder(place / "whole")


# -- parts of a batch ---------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_are_the_batch_with_the_same_crops_and_flips(parts):
    data = load("digits")

    def loader(number, count):
        from freezeout.lab.data import Augmentation

        return TensorLoader(
            data.train_images[:75],
            data.train_labels[:75],
            batch_size=16,
            device="cpu",
            seed=3,
            augmentation=Augmentation(padding=1, flip=True),
            part=(number, count),
        )

    whole = list(loader(0, 1).epoch(2))
    shares = [list(loader(number, parts).epoch(2)) for number in range(parts)]
    for i, (images, labels) in enumerate(whole):
        assert loader(0, parts).images_in(i) == len(labels)
        assert torch.equal(torch.cat([share[i][0] for share in shares]), images)
        assert torch.equal(torch.cat([share[i][1] for share in shares]), labels)
        sizes = [len(share[i][1]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_a_part_that_is_none_is_refused():
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    for part in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"part\[[01]\] must (be|lie)"):
            TensorLoader(images, torch.arange(4), batch_size=2, device="cpu", part=part)


# -- two processes ------------------------------------------------------------------------------


def test_two_processes_end_where_one_does(one, two):
    assert_close_end(one, two)
    assert events(one) == events(two)
    assert [r["processes"] for r in (one.read_log()[0], two.read_log()[0])] == [1, 2]
    assert not two.path.with_name("whole-1").exists()  # rank 1 writes nothing
    assert one.settings() == two.settings()


def test_what_goes_between_processes_shrinks_with_every_freeze(pair, place, two):
    steps = pair.run(job, "exchange", place)[0]
    assert_same_end(two, RunFolder(place / "exchange"))  # looking changes nothing
    elements = [n for n, _, _ in steps]
    frozen = [r["step"] for r in two.read_log() if r["event"] == "freeze"]
    changes = [i + 1 for i in range(1, 15) if elements[i] != elements[i - 1]]
    assert changes == sorted(set(frozen))
    assert elements == sorted(elements, reverse=True)
    assert elements[-1] == 330  # the classifier
    # In the last epoch only losses are told: frozen BatchNorms have nothing to say.
    messages = [n for _, n, _ in steps]
    assert [b - a for a, b in itertools.pairwise(messages[10:])] == [1, 1, 1, 1]
    assert messages[1] - messages[0] > 7  # each of seven BatchNorms, there and back, and losses
    assert {n for _, _, n in steps} == {0}  # no buffers


@pytest.mark.parametrize("name", ["again", "each_step"])
def test_killed_and_resumed_in_two_processes_it_ends_with_the_same_bits(pair, place, two, name):
    assert pair.run(job, name, place) == [(15, False)] * 2
    assert_same_end(two, RunFolder(place / name))
    assert events(RunFolder(place / name)) == events(two)


def test_a_signal_to_one_process_stops_both_after_the_same_step(pair, place, two):
    first, second = pair.run(job, "signalled", place)
    assert (first[0], second[0]) == ((7, True), (7, True))
    assert (first[2], second[2]) == ((15, False), (15, False))
    assert "stopped after step 7 of 15, all saved" in first[1][-1]
    assert_same_end(two, RunFolder(place / "signalled"))


def test_begun_in_one_process_it_goes_on_in_two(pair, place, one):
    folder = RunFolder(place / "from_another")
    with pytest.raises(KilledError):
        start(uneven(checkpoint_minutes=1e-9), folder, [KillAt(8)])
    assert load_checkpoint(folder.checkpoint)["step"] == 7
    (first, said), _ = pair.run(job, "from_another", place)
    assert first == (15, False)
    assert "goes on in 2 processes, after 1: the same result but for rounding" in said
    assert_close_end(one, folder)
    assert events(folder) == events(one)
    note = next(r for r in folder.read_log() if r["event"] == "resume")
    assert (note["step"], note["processes"]) == (7, 2)


def test_begun_in_two_processes_it_goes_on_in_one(pair, place, one):
    pair.run(job, "for_another", place)
    folder = RunFolder(place / "for_another")
    assert not resume(folder).interrupted
    assert_close_end(one, folder)
    assert events(folder) == events(one)


def test_a_custom_network_with_dropout_resumes_to_the_same_bits(pair, place):
    (said, seed), (_, other_seed) = pair.run(job, "own", place)
    assert_same_end(RunFolder(place / "own"), RunFolder(place / "own_again"))
    a, b = (load_checkpoint(place / n / "checkpoint.pt") for n in ("own", "own_again"))
    for one, other in zip(a["generators"], b["generators"], strict=True):
        assert torch.equal(one[0], other[0])
    assert seed == 0 != other_seed  # masks of their own
    assert any("OtherNorm normalises in each process by itself" in text for text in said)


def test_the_control_and_another_optimizer(pair, place):
    assert pair.run(job, "control", place) == [(15, False)] * 2
    folder = RunFolder(place / "control_alone")
    start(uneven(freeze=False, optimizer="adamw", lr=1e-3), folder)
    # AdamW divides by the root of what may be tiny.
    assert_close_end(folder, RunFolder(place / "control"), rtol=1e-3, atol=1e-5)


def test_what_cannot_begin_is_refused_in_every_process(pair, place):
    first, second = pair.run(job, "refused", place)
    assert first.keys() == second.keys()
    assert "const_time needs measured costs" in first["const_time"]
    assert "cuda:0" in first["device"]
    assert "gives other data in process 1 than in process 0" in first["data"]
    assert "train_size must be at most 1437" in first["first"]
    assert "is not empty" in first["full"]
    assert re.search(r"diverged: .* at step \d+\.", first["diverged"])
    assert first == second
    left = ("const_time", "device", "data", "first")
    assert not [p for name in left for p in place.glob(f"{name}*")]
    assert (place / "full" / "file").read_text() == "mine"


def test_batchnorm_over_all_processes_is_that_of_the_whole_batch(pair, place):
    for worst, same_names, local in pair.run(job, "norm", place):
        assert worst < 1e-11  # in double precision; parts have 5 and 6 images
        assert same_names
        assert local == []


@pytest.mark.slow
def test_three_processes(place, one, two):
    with joined(3) as ranks:
        assert ranks.run(job, "whole", place / "three") == [(15, False)] * 3
        whole = RunFolder(place / "three" / "whole")
        assert_close_end(one, whole)
        for name in ("again", "each_step"):
            assert ranks.run(job, name, place / "three") == [(15, False)] * 3
            # With three, sums depend on how gradients are packed, but for a fixed order.
            assert_same_end(whole, RunFolder(place / "three" / name))
        messages = ranks.run(job, "refused", place / "three")
        assert "at least an image for each of the 3 processes, got 2" in messages[0]["images"]
        for worst, _, _ in ranks.run(job, "norm", place / "three"):
            assert worst < 1e-11
        from_two = RunFolder(place / "three" / "from_another")
        shutil.copytree(two.path, from_two.path)
        assert ranks.run(job, "from_another", place / "three")[0][0] == (15, False)


@pytest.mark.slow
def test_bf16(pair, place):
    assert pair.run(job, "bf16", place) == [(15, False)] * 2
    folder = RunFolder(place / "bf16_alone")
    start(uneven(precision="bf16"), folder)
    a, b = (load_checkpoint(f.checkpoint) for f in (folder, RunFolder(place / "bf16")))
    for x, y in zip(a["history"], b["history"], strict=True):
        assert x["train_loss"] == pytest.approx(y["train_loss"], rel=0.05)
