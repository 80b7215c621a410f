"""Data set, hold-out, augmentation and statistics: what they hold and what they refuse."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeout.lab.data import (
    NAMES,
    Augmentation,
    Dataset,
    canonical_name,
    channel_statistics,
    default_augmentation,
    hold_out,
    shrink,
)


def parts(**changes):
    images = torch.arange(6 * 3 * 2 * 4, dtype=torch.uint8).view(6, 3, 2, 4)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    made = {
        "name": "tiny",
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:2] + 100,
        "test_labels": labels[:2],
        "classes": ("a", "b", "c"),
    }
    return {**made, **changes}


class TestDataset:
    def test_says_what_it_is(self):
        dataset = Dataset(**parts())
        assert (dataset.num_classes, dataset.channels, dataset.image_size) == (3, 3, (2, 4))
        expected = "Dataset('tiny': 6 training and 2 test images of 3x2x4, 3 classes)"
        assert repr(dataset) == expected

    def test_is_frozen_and_hashable(self):
        dataset = Dataset(**parts())
        with pytest.raises(dataclasses.FrozenInstanceError):
            dataset.name = "other"
        assert dataset in {dataset}
        assert dataset != Dataset(**parts())

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"name": ""}, TypeError, "name must be a non-empty string, got ''"),
            ({"classes": ["a", "b", "c"]}, TypeError, "classes must be a non-empty tuple"),
            ({"classes": ()}, TypeError, "classes must be a non-empty tuple"),
            ({"train_images": torch.zeros(6, 3, 2, 4)}, TypeError, "train_images must be a uint8"),
            ({"test_images": "x"}, TypeError, "test_images must be a uint8 tensor, got str"),
            (
                {"train_images": torch.zeros(6, 2, 4, dtype=torch.uint8)},
                ValueError,
                r"train_images must have a shape \(N, C, H, W\) without zeros, got \(6, 2, 4\)",
            ),
            (
                {"test_images": torch.zeros(2, 3, 2, 5, dtype=torch.uint8)},
                ValueError,
                r"one shape \(C, H, W\), got \(3, 2, 4\) and \(3, 2, 5\)",
            ),
            ({"train_labels": torch.zeros(6)}, TypeError, "train_labels must be an int64 tensor"),
            ({"test_labels": torch.zeros(3).long()}, ValueError, r"the shape \(2,\), got \(3,\)"),
            (
                {"test_labels": torch.tensor([0, 3])},
                ValueError,
                r"test_labels must lie in \[0, 2\], got values from 0 to 3",
            ),
            ({"test_labels": torch.tensor([-1, 0])}, ValueError, "got values from -1 to 0"),
        ],
    )
    def test_refuses(self, changes, error, words):
        with pytest.raises(error, match=words):
            Dataset(**parts(**changes))


class TestHoldOut:
    def test_moves_the_last_training_images(self):
        dataset = Dataset(**parts())
        held = hold_out(dataset, 2)
        assert torch.equal(held.train_images, dataset.train_images[:4])
        assert torch.equal(held.test_images, dataset.train_images[4:])
        assert held.train_labels.tolist() == [0, 1, 2, 0]
        assert held.test_labels.tolist() == [1, 2]
        assert held.classes == dataset.classes
        assert len(dataset.train_images) == 6

    @pytest.mark.parametrize("count", [0, 6, -1])
    def test_refuses_counts_that_leave_nothing(self, count):
        with pytest.raises(ValueError, match=rf"^holdout must lie in 1 to 5, got {count}\."):
            hold_out(Dataset(**parts()), count)

    @pytest.mark.parametrize("count", [0.1, True, "5"])
    def test_refuses_what_is_no_integer(self, count):
        with pytest.raises(
            TypeError, match=f"^holdout must be a whole number from 1 to 5, got {count!r}"
        ):
            hold_out(Dataset(**parts()), count)


class TestShrink:
    def test_averages_squares_and_cuts_off_what_is_left_over(self):
        images = torch.zeros(2, 1, 5, 7, dtype=torch.uint8)
        images[0, 0, :2, :2] = torch.tensor([[1, 2], [3, 5]])  # 2.75
        images[0, 0, 2:4, 4:6] = torch.tensor([[255, 255], [255, 255]])
        images[1, 0, :2, 2:4] = torch.tensor([[0, 1], [0, 0]])  # 0.25
        images[:, :, 4], images[:, :, :, 6] = 200, 200  # is cut off
        small = shrink(
            Dataset(
                **parts(
                    train_images=images,
                    train_labels=torch.tensor([0, 1]),
                    test_images=images[:1],
                    test_labels=torch.tensor([1]),
                )
            ),
            2,
        )
        expected = torch.tensor([[[[3, 0, 0], [0, 0, 255]]], [[[0, 0, 0], [0, 0, 0]]]])
        assert torch.equal(small.train_images, expected.to(torch.uint8))
        assert torch.equal(small.test_images, expected[:1].to(torch.uint8))
        assert small.image_size == (2, 3)

    def test_rounds_half_to_even_in_every_channel_by_itself(self):
        images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        images[0, 0, 0, 0], images[0, 1, 0, 0], images[0, 2] = 2, 6, 255  # 0.5, 1.5, 255
        one = {"train_labels": torch.tensor([0]), "test_labels": torch.tensor([0])}
        small = shrink(Dataset(**parts(train_images=images, test_images=images, **one)), 2)
        assert small.train_images.flatten().tolist() == [0, 2, 255]
        assert small.train_images.dtype == torch.uint8

    def test_leaves_the_original_and_all_but_the_images(self):
        dataset = Dataset(**parts())
        before = dataset.train_images.clone()
        small = shrink(dataset, 2)
        assert torch.equal(dataset.train_images, before)
        assert (small.name, small.classes) == (dataset.name, dataset.classes)
        assert torch.equal(small.train_labels, dataset.train_labels)
        assert torch.equal(small.test_labels, dataset.test_labels)
        assert shrink(dataset, 1) is dataset

    def test_more_images_than_are_shrunk_at_once(self):
        images = torch.arange(5000).remainder(256).to(torch.uint8).view(-1, 1, 1, 1)
        images = images.expand(-1, 3, 2, 4).contiguous()
        labels = torch.zeros(5000, dtype=torch.int64)
        small = shrink(Dataset(**parts(train_images=images, train_labels=labels)), 2)
        assert torch.equal(small.train_images, images[:, :, :1, :2])

    @pytest.mark.parametrize("factor", [0, 3, -1])
    def test_refuses_what_leaves_no_image(self, factor):
        words = rf"^shrink must lie in 1 to 2, got {factor}\. .* images have 2x4\."
        with pytest.raises(ValueError, match=words):
            shrink(Dataset(**parts()), factor)

    @pytest.mark.parametrize("factor", [0.5, True, "2"])
    def test_refuses_what_is_no_integer(self, factor):
        with pytest.raises(
            TypeError, match=f"^shrink must be a whole number from 1 to 2, got {factor!r}"
        ):
            shrink(Dataset(**parts()), factor)


class TestAugmentation:
    def test_is_a_value(self):
        assert Augmentation(padding=2) == Augmentation(padding=2, flip=False)
        assert repr(Augmentation(padding=2)) == "Augmentation(padding=2, flip=False)"

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
            ({"padding": 1.5}, TypeError, "padding must be a whole number of at least 0, got 1.5"),
            (
                {"padding": True},
                TypeError,
                "padding must be a whole number of at least 0, got True",
            ),
            ({"flip": 1}, TypeError, "flip must be True or False, got 1"),
        ],
    )
    def test_refuses(self, options, error, words):
        with pytest.raises(error, match=words):
            Augmentation(**options)

    def test_defaults(self):
        assert {name: default_augmentation(name) for name in NAMES} == {
            "digits": Augmentation(padding=1, flip=False),
            "fashion-mnist": Augmentation(padding=2, flip=True),
            "cifar10": Augmentation(padding=4, flip=True),
            "cifar100": Augmentation(padding=4, flip=True),
        }
        assert default_augmentation("CIFAR_10") == default_augmentation("cifar10")
        with pytest.raises(ValueError, match=r"data set must be one of digits, .* got 'svhn'"):
            default_augmentation("svhn")


class TestNames:
    @pytest.mark.parametrize(
        ("given_name", "expected"),
        [
            *((name, name) for name in NAMES),
            ("CIFAR-10", "cifar10"),
            ("cifar_100", "cifar100"),
            ("Fashion_MNIST", "fashion-mnist"),
            ("FashionMNIST", "fashion-mnist"),
        ],
    )
    def test_spellings(self, given_name, expected):
        assert canonical_name(given_name) == expected

    def test_refuses_others(self):
        with pytest.raises(
            ValueError, match=r"^the data set must be one of digits, fashion-mnist, .* got 'mnist'"
        ) as caught:
            canonical_name("mnist")
        assert "Dataset" not in str(caught.value)
        with pytest.raises(TypeError, match="data set must be a string, got 10"):
            canonical_name(10)


class TestStatistics:
    @given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
    @settings(max_examples=25)
    def test_equal_those_of_doubles(self, count, channels, seed):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (count, channels, 3, 4), generator=generator).to(torch.uint8)
        values = images.double() / 255
        mean, std = channel_statistics(images)
        assert mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-12)
        assert std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), rel=1e-9)

    def test_of_constant_images_are_exact(self):
        images = torch.full((3, 2, 5, 5), 51, dtype=torch.uint8)
        assert channel_statistics(images) == ((0.2, 0.2), (0.0, 0.0))

    def test_of_more_images_than_are_counted_at_a_time(self):
        images = torch.zeros(5000, 1, 1, 2, dtype=torch.uint8)
        images[4999] = 255
        (mean,), _ = channel_statistics(images)
        assert mean == 1 / 5000

    def test_refuses_floats(self):
        with pytest.raises(TypeError, match="images must be a uint8 tensor, got torch"):
            channel_statistics(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device="meta"), None, "without values"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8).to_sparse(), None, r"layout torch\.sparse"),
        (None, torch.zeros(4, dtype=torch.int64, device="meta"), "without values"),
        (None, torch.zeros(4, dtype=torch.int64).to_sparse(), r"layout torch\.sparse"),
    ],
)
def test_tensors_without_all_their_values_are_refused(images, labels, words):
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8) if images is None else images
    labels = torch.zeros(4, dtype=torch.int64) if labels is None else labels
    with pytest.raises(TypeError, match=f"must be an ordinary tensor, got .*{words}"):
        Dataset("tiny", images, labels, images, labels, ("a",))


@pytest.mark.parametrize("classes", [(0, 1), ("a", None), "ab", ["a"], ()])
def test_names_of_classes_are_a_tuple_of_texts(classes):
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TypeError, match="classes must be a non-empty tuple of names"):
        Dataset("tiny", images, labels, images, labels, classes)
