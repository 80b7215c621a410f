"""Facts about the official data files: names, addresses, published checksums, class names.

The MD5 sums are those that the authors of the data sets publish (for the members of the CIFAR
archives, those that torchvision publishes too). The SHA-256 sums are of decoded content and serve
the compact copies, see :mod:`freezeout.lab.data.compact`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ADDRESS",
    "CIFAR10",
    "CIFAR100",
    "FASHION_MNIST_CLASSES",
    "FASHION_MNIST_FILES",
    "MD5",
    "CifarFacts",
]

_CIFAR_HOST = "https://www.cs.toronto.edu/~kriz"
_FASHION_HOST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)

# What can be fetched: file name -> official address. Plain http is safe here, the MD5 decides.
ADDRESS: dict[str, str] = {
    "cifar-10-python.tar.gz": f"{_CIFAR_HOST}/cifar-10-python.tar.gz",
    "cifar-100-python.tar.gz": f"{_CIFAR_HOST}/cifar-100-python.tar.gz",
    **{name: f"{_FASHION_HOST}/{name}" for name in FASHION_MNIST_FILES},
}

MD5: dict[str, str] = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class CifarFacts:
    """Everything in which CIFAR-10 and CIFAR-100 differ.

    Attributes:
        name: Name of the data set, and of the folder of its compact copy.
        archive: File name of the official archive.
        folder: Folder inside the archive, also where the unpacked files are looked for.
        train_files: Files of the training split inside ``folder``, in order.
        test_file: File of the test split inside ``folder``.
        label_key: Key of the labels in the official files.
        classes: Class names, by label.
        labels_sha256: SHA-256 of ``labels.npy`` of the compact copy.
        pixels_sha256: SHA-256 of the decoded pixels of each batch of the compact copy.
    """

    name: str
    archive: str
    folder: str
    train_files: tuple[str, ...]
    test_file: str
    label_key: str
    classes: tuple[str, ...]
    labels_sha256: str
    pixels_sha256: tuple[str, ...]


CIFAR10 = CifarFacts(
    name="cifar10",
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_file="test_batch",
    label_key="labels",
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    labels_sha256="aa20cee99d0aebb017bb1638beaa68cc8bb7b7e321bd268aecdbe1b694435a04",
    pixels_sha256=(
        "a50e8b48728e1667d682a807155c375279d5ae321fb12242c02e3104a6bc8b21",
        "0b825e5592c3b72ea18d6ec2ff5f5b19d33e41a75f5039054a9bb87be3cf69a0",
        "c6ee1dd4601a69ec085d8ebf53ee6441775491a6839a0a9ae8fa198e88a3a429",
        "1f6b6c799cff375a9f8fae2fac909d51ee09f38a6a60eebb9e8fec6f47ddc48f",
        "58e3bbf713e28357476a351d3a05d056372f94c681d04ca9d62a076fdf2a643b",
        "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    ),
)

_CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
    "worm",
)  # fmt: skip

CIFAR100 = CifarFacts(
    name="cifar100",
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    train_files=("train",),
    test_file="test",
    label_key="fine_labels",
    classes=_CIFAR100_CLASSES,
    labels_sha256="22a65b7acfd4c12e00b9947c2e850f9f2a2ef7b0629ecc6eb97e8d7e5d9dbad7",
    pixels_sha256=(
        "f321cd6c9d09661fcb23d35fc5aea16a992b73856ca4c5117604d61df4c5c017",
        "efb21a0ce54808e5dc6b54c1d5ea95738ddf80c3153daf65195b78f62998df03",
        "472e30019ff8765458702dc9d868f946c5953ccce7da0250314bf80dcd19feb7",
        "e98e5da0277c3849a70c9b583216a046ace61a3da2a3c09113d4799febdcf7b1",
        "72bc429a8f1a7395a51bf2d746005f612ab0ec718b09d78f8227158fc24df8eb",
        "83c56492b2c11211ad1bb2dbd4f2eef4170a0441e41a41f3039c3144b1f5a511",
    ),
)
