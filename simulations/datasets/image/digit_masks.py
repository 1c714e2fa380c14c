"""Masks for scikit-learn's handwritten digits: the digit that each inked pixel belongs to. Computed, not hand-drawn."""

from pathlib import Path

import numpy as np
import pandas as pd

from simulations.datasets.image.digit_images import DIGITS_LARGEST, DIGITS_NOTE, png

INK = 6
"""Of 16 grey levels, from which on a pixel is ink."""
MASKS_NOTE = f"""# Masks for handwritten digits

Every pixel of {INK} or more of 16 grey levels belongs to the image's digit (classes 1 to 10 for 0 to 9), all others to
the background (class 0). Made by that rule from the images below; nobody drew them.

"""


def build(folder: Path) -> None:
    """Write digit-masks.parquet: image and mask (PNG bytes, 8 by 8). Needs no download."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / DIGITS_LARGEST)).astype(np.uint8)
    masks = np.where(digits.images >= INK, digits.target[:, None, None] + 1, 0).astype(np.uint8)
    table = pd.DataFrame({"image": [png(image) for image in pixels], "mask": [png(mask) for mask in masks]})
    table.to_parquet(folder / "digit-masks.parquet", index=False)
    (folder / "SOURCE.md").write_text(MASKS_NOTE + DIGITS_NOTE)
