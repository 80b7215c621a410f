"""Loader: the same batches whatever happens around them, and right pixels in them."""

import pytest
import torch

from freezeout.lab.data import Augmentation, TensorLoader, channel_statistics

COUNT, SIZE, PADDING = 90, (7, 9), 2
BOTH = Augmentation(padding=PADDING, flip=True)
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (COUNT, 3, *SIZE), generator=generator).to(torch.uint8)


def make(images, **options):
    settings = {"batch_size": 16, "device": "cpu", "seed": 3, **options}
    return TensorLoader(images, torch.arange(len(images)), **settings)


def by_sample(loader, epoch=0):
    """What an epoch makes of each sample."""
    return {int(y): x for xs, ys in loader.epoch(epoch) for x, y in zip(xs, ys, strict=True)}


def order(loader, epoch=0):
    return [int(y) for _, ys in loader.epoch(epoch) for y in ys]


def same(left, right):
    assert len(left) == len(right)
    for (x, y), (other_x, other_y) in zip(left, right, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def naive_variants(image, padding):
    """Every crop and flip of one image, with loops and slices alone."""
    channels, height, width = image.shape
    canvas = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
    canvas[:, padding : padding + height, padding : padding + width] = image
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = canvas[:, top : top + height, left : left + width]
            yield (top, left, False), crop
            yield (top, left, True), torch.stack([crop[..., w] for w in reversed(range(width))], -1)


def variants_of(images, loader, epoch=0):
    """Which variant each sample became; fails where it became none."""
    found = {}
    for sample, x in by_sample(loader, epoch).items():
        pixels = (x * 255).round().to(torch.uint8)
        matches = [
            which
            for which, crop in naive_variants(images[sample], loader.augmentation.padding)
            if torch.equal(crop, pixels)
        ]
        assert len(matches) == 1, f"sample {sample} is no crop of its image"
        found[sample] = matches[0]
    return found


class TestAugmentation:
    def test_every_image_is_one_of_its_naive_crops_and_flips(self, images):
        found = variants_of(images, make(images, augmentation=BOTH, **PLAIN))
        assert len(found) == COUNT
        tops, lefts, flips = zip(*found.values(), strict=True)
        assert set(tops) == set(lefts) == set(range(2 * PADDING + 1))
        assert set(flips) == {False, True}
        assert any(top != left for top, left in zip(tops, lefts, strict=True))

    def test_padding_alone_never_flips_and_flip_alone_never_moves(self, images):
        cropped = variants_of(images, make(images, augmentation=Augmentation(padding=1), **PLAIN))
        assert {flip for *_, flip in cropped.values()} == {False}
        assert len({place[:2] for place in cropped.values()}) == 9
        flipped = variants_of(images, make(images, augmentation=Augmentation(flip=True), **PLAIN))
        assert set(flipped.values()) == {(0, 0, False), (0, 0, True)}

    def test_offsets_are_uniform_and_half_the_images_flip(self):
        # One bright pixel in the middle tells where the crop was taken and whether it was turned.
        images = torch.zeros(20_000, 1, 5, 6, dtype=torch.uint8)
        images[:, :, 2, 2] = 255
        x = torch.cat(
            [
                x
                for x, _ in make(
                    images, batch_size=4096, augmentation=BOTH, mean=(0.0,), std=(1.0,)
                ).epoch(0)
            ]
        )
        rows, columns = x.amax((1, 3)).argmax(1), x.amax((1, 2)).argmax(1)
        counts = torch.bincount(rows, minlength=5)
        assert counts.min() > 3_700
        assert counts.max() < 4_300
        # Column 5 is reached only flipped, column 0 only as it was; the two are equally frequent.
        assert abs(int((columns == 5).sum()) - int((columns == 0).sum())) < 300
        assert (columns == 5).sum() > 1_700

    def test_depends_on_seed_epoch_and_sample_alone(self, images):
        expected = by_sample(make(images, augmentation=BOTH))
        for other in (
            make(images, augmentation=BOTH, batch_size=7),
            make(images, augmentation=BOTH, batch_size=1000),
            make(images, augmentation=BOTH, shuffle=False),
            make(images, augmentation=BOTH, channels_last=True),
        ):
            actual = by_sample(other)
            assert actual.keys() <= expected.keys()
            assert all(torch.equal(x, expected[sample]) for sample, x in actual.items())

    def test_of_a_sample_does_not_depend_on_how_many_follow_it(self, images):
        expected = by_sample(make(images, augmentation=BOTH, **PLAIN))
        fewer = by_sample(make(images[:50], augmentation=BOTH, **PLAIN))
        assert all(torch.equal(x, expected[sample]) for sample, x in fewer.items())

    def test_changes_with_seed_and_epoch_which_are_not_interchangeable(self, images):
        seen = [
            variants_of(images, make(images, augmentation=BOTH, seed=seed, **PLAIN), epoch)
            for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
        for index, one in enumerate(seen):
            for other in seen[index + 1 :]:
                assert sum(one[sample] == other[sample] for sample in one) < COUNT / 4

    def test_padding_is_black_before_normalisation(self):
        images = torch.full((64, 1, 4, 4), 200, dtype=torch.uint8)
        loader = make(images, augmentation=Augmentation(padding=3), mean=(0.5,), std=(0.25,))
        values = torch.cat([x for x, _ in loader.epoch(0)]).unique()
        torch.testing.assert_close(values, torch.tensor([-2.0, (200 / 255 - 0.5) / 0.25]))


class TestNormalisation:
    def test_is_that_of_the_formula_within_float32_rounding(self, images):
        mean, std = (0.49, 0.5, 0.1), (0.2, 0.3, 0.05)
        expected = images.double() / 255
        expected = (expected - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(
            std
        ).double().view(3, 1, 1)
        for channels_last in (False, True):
            loader = make(images, shuffle=False, mean=mean, std=std, channels_last=channels_last)
            actual = torch.cat([x for x, _ in loader.epoch(0)])
            assert actual.dtype == torch.float32
            torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=2e-6)

    def test_measures_the_images_when_not_told(self, images):
        loader = make(images, shuffle=False)
        assert (loader.mean, loader.std) == channel_statistics(images)
        x = torch.cat([x for x, _ in loader.epoch(0)]).double()
        torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            x.std((0, 2, 3), correction=0), torch.ones(3).double(), rtol=0, atol=1e-5
        )

    @pytest.mark.parametrize("augmentation", [None, BOTH])
    def test_layout_is_as_asked_for(self, images, augmentation):
        for wanted in (False, True):
            loader = make(images, augmentation=augmentation, channels_last=wanted)
            x, _ = next(loader.epoch(0))
            assert x.is_contiguous(memory_format=torch.channels_last) is wanted
            assert x.is_contiguous() is not wanted


class TestOrder:
    def test_is_a_new_permutation_in_every_epoch(self, images):
        loader = make(images)
        first, second = order(loader, 0), order(loader, 1)
        assert sorted(first) == sorted(second) == list(range(COUNT))
        assert first != second
        assert first != list(range(COUNT))

    def test_is_repeatable_and_epochs_may_interleave(self, images):
        loader = make(images, augmentation=BOTH)
        zero, one = list(loader.epoch(0)), list(loader.epoch(1))
        mixed = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
        same([batch for batch, _ in mixed], zero)
        same([batch for _, batch in mixed], one)
        same(list(make(images, augmentation=BOTH).epoch(1)), one)

    def test_seed_and_epoch_are_not_interchangeable(self, images):
        assert order(make(images, seed=0), 1) != order(make(images, seed=1), 0)
        assert order(make(images, seed=-1), 0) != order(make(images, seed=1), 0)

    def test_is_that_of_the_split_without_shuffling(self, images):
        assert order(make(images, shuffle=False), 5) == list(range(COUNT))

    @pytest.mark.parametrize("batch_size", [16, 89, 90])
    def test_resumes_in_the_middle_of_an_epoch(self, images, batch_size):
        loader = make(images, augmentation=BOTH, batch_size=batch_size)
        whole = list(loader.epoch(2))
        for start in range(len(loader) + 1):
            same(list(loader.epoch(2, start)), whole[start:])
        assert list(loader.epoch(2, len(loader))) == []

    def test_leaves_the_global_generator_alone(self, images):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = list(make(images, augmentation=BOTH).epoch(0))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        same(list(make(images, augmentation=BOTH).epoch(0)), first)


class TestBatches:
    @pytest.mark.parametrize(
        ("count", "batch_size", "shuffle", "sizes"),
        [
            (90, 16, True, [16] * 5 + [10]),
            (90, 45, True, [45, 45]),
            (90, 100, True, [90]),
            (33, 16, True, [16, 16]),
            (33, 16, False, [16, 16, 1]),
            (3, 1, True, [1, 1, 1]),
            (1, 16, True, [1]),
            (1, 16, False, [1]),
        ],
    )
    def test_sizes(self, images, count, batch_size, shuffle, sizes):
        loader = make(images[:count], batch_size=batch_size, shuffle=shuffle)
        batches = list(loader.epoch(0))
        assert [len(y) for _, y in batches] == [len(x) for x, _ in batches] == sizes
        assert len(loader) == len(sizes)
        assert loader.num_images == sum(sizes)

    def test_the_lone_image_left_out_is_another_in_another_epoch(self, images):
        loader = make(images[:33])
        left_out = [set(range(33)) - set(order(loader, epoch)) for epoch in range(8)]
        assert all(len(lone) == 1 for lone in left_out)
        assert len(set.union(*left_out)) > 3

    def test_labels_stay_with_their_images(self, images):
        for sample, x in by_sample(make(images, **PLAIN)).items():
            assert torch.equal((x * 255).round().to(torch.uint8), images[sample])

    def test_changing_a_batch_does_not_change_the_split(self, images):
        loader = make(images, shuffle=False)
        for x, y in loader.epoch(0):
            x.zero_()
            y.zero_()
        assert order(loader) == list(range(COUNT))
        assert all(x.any() for x, _ in loader.epoch(0))

    @pytest.mark.gpu
    def test_are_the_same_on_a_gpu(self, images):
        for shuffle in (False, True):
            options = {"augmentation": BOTH, "shuffle": shuffle, "channels_last": True}
            on_cpu = list(make(images, **options).epoch(1))
            on_gpu = list(make(images, device="cuda", **options).epoch(1))
            for (x, y), (gpu_x, gpu_y) in zip(on_cpu, on_gpu, strict=True):
                assert gpu_x.is_cuda
                torch.testing.assert_close(gpu_x.cpu(), x)
                assert torch.equal(gpu_y.cpu(), y)


GREY = torch.zeros(4, 1, 3, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        (
            {"batch_size": 2.0},
            TypeError,
            "batch_size must be a whole number of at least 1, got 2.0",
        ),
        (
            {"batch_size": True},
            TypeError,
            "batch_size must be a whole number of at least 1, got True",
        ),
        ({"seed": "x"}, TypeError, "seed must be a whole number, got 'x'"),
        ({"augmentation": 4}, TypeError, "augmentation must be an Augmentation or None, got 4"),
        (
            {"augmentation": Augmentation(padding=3)},
            ValueError,
            "padding must be smaller than the image, got 3 for images of 3x3",
        ),
        ({"mean": (0.5,)}, ValueError, r"mean and std must be given together, got mean=\(0.5,\)"),
        ({"std": (0.5,)}, ValueError, "mean and std must be given together"),
        ({"mean": (0, 0), "std": (1,)}, ValueError, "mean must have one value for each of the 1"),
        ({"mean": (0,), "std": (1, 1)}, ValueError, "std must have one value for each of the 1"),
        ({"mean": (0,), "std": (0,)}, ValueError, r"std must be above 0 .* got \(0,\)"),
        ({"mean": (0,), "std": (float("nan"),)}, ValueError, "std must be above 0"),
        ({}, ValueError, "std must be above 0 in every channel"),  # measured on constant images
        ({"labels": torch.zeros(3).long()}, ValueError, r"labels must have the shape \(4,\)"),
        ({"labels": torch.zeros(4)}, TypeError, "labels must be an int64 tensor, got torch.float"),
        ({"images": GREY.float()}, TypeError, "images must be a uint8 tensor, got torch.float32"),
        ({"images": GREY[:0]}, ValueError, r"images must have a shape .* got \(0, 1, 3, 3\)"),
        ({"images": GREY[0]}, ValueError, "images must have a shape"),
    ],
)
def test_refuses_bad_arguments(options, error, words):
    settings = {"batch_size": 2, "device": "cpu", **options}
    images = settings.pop("images", GREY)
    labels = settings.pop("labels", torch.zeros(len(images)).long())
    with pytest.raises(error, match=words):
        TensorLoader(images, labels, **settings)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((-1,), ValueError, "epoch must be at least 0, got -1"),
        ((0.5,), TypeError, "epoch must be a whole number of at least 0, got 0.5"),
        ((0, 7), ValueError, "start must lie in 0 to 6, got 7"),
        ((0, -1), ValueError, "start must lie in 0 to 6, got -1"),
        ((0, None), TypeError, "start must be a whole number from 0 to 6, got None"),
    ],
)
def test_epoch_refuses_bad_arguments_at_once(images, arguments, error, words):
    loader = make(images)
    with pytest.raises(error, match=words):
        loader.epoch(*arguments)
