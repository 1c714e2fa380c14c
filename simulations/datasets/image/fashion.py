"""Fashion-MNIST, from Debian's package: articles of clothing, which a model that only knows digits has never seen.

It comes in two parts that share no image, so that what is chosen on one of them can be measured on the other.
"""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.download import debian_packages
from simulations.datasets.image.digit_images import write_images

PACKAGE = "dataset-fashion-mnist"
SHIPPED = Path("usr/share/datasets/fashion-mnist")
SIDE, FOR_CHOICES = 28, 30_000
LABELS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
SOURCE_NOTE = """# Fashion-MNIST, {part}

H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017, MIT, from the Debian package dataset-fashion-mnist: grey images of 28 by 28 pixels, ten articles.
"""


def build(folder: Path) -> None:
    """Write fashion.parquet (image: PNG bytes, 28 by 28; label), the 40,000 images on which no setting was chosen."""
    with debian_packages([PACKAGE]) as unpacked:
        train, test = read(unpacked / SHIPPED, "train"), read(unpacked / SHIPPED, "t10k")
    pixels, labels = (
        np.concatenate([of_train[FOR_CHOICES:], of_test]) for of_train, of_test in zip(train, test, strict=True)
    )
    note = SOURCE_NOTE.format(part="the last 30,000 training images and the 10,000 test images")
    write_images(folder / "fashion.parquet", pixels, [LABELS[label] for label in labels], note)


def build_for_choices(folder: Path) -> None:
    """Write fashion-choices.parquet, 30,000 other images, on which rates and the like are chosen."""
    with debian_packages([PACKAGE]) as unpacked:
        pixels, labels = (of_train[:FOR_CHOICES] for of_train in read(unpacked / SHIPPED, "train"))
    note = SOURCE_NOTE.format(part="the first 30,000 training images")
    write_images(folder / "fashion-choices.parquet", pixels, [LABELS[label] for label in labels], note)


def read(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images (images, 28, 28) and labels (images,) of `train` or `t10k`, in the format of MNIST.

    Raises:
        DataError: the files are not there, or are others.
    """
    try:
        images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
        header = np.frombuffer(images[:16], ">u4"), np.frombuffer(labels[:8], ">u4")
        count = len(labels) - 8
        if header[0].tolist() != [IMAGES_MAGIC, count, SIDE, SIDE] or header[1].tolist() != [LABELS_MAGIC, count]:
            raise ValueError(f"headers {header[0].tolist()} and {header[1].tolist()}")
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, SIDE, SIDE)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"Expected images of {SIDE} by {SIDE} pixels and their labels.", hint=str(error)) from None
    return pixels, np.frombuffer(labels, np.uint8, offset=8)
