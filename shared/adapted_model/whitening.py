"""Features that vary alike in every direction: a linear head on a model that was pretrained on something else learns
faster from them.

Few directions hold most of what such features are, and gradients of one length hardly move the others. Dividing by the
square root of the second moments (whitening) evens that out. The moments are measured privately, in a study's first
round and by its own noisy steps: the gradient of the loss

    -phi' M phi

with respect to the matrix M is -phi phi', of length |phi|², which is the same for every record: clipping scales all
alike, and a round that descends on this loss adds up second moments, noised and accounted like everything else.

Noise adds a random symmetric matrix, whose eigenvalues fill an interval around zero (Wigner's semicircle). Its edge is
read off the smallest eigenvalue found, since true second moments have none below zero. Directions within the edge are
left as they are beside each other; those beyond it have their eigenvalue corrected for what noise adds to it
(Benaych-Georges & Nadakuditi 2011, arXiv:0910.2120). Where nothing stands out, features stay as they are.
"""

import numpy as np
from numpy.typing import NDArray

CLEAR = 1.2
"""Of the noise's edge, beyond which a direction stands out: the edge itself is known to several percent only."""
SHORTEST = 0.25
"""Of the noise's edge, which is added to every eigenvalue: directions just beyond it are still uncertain."""
LEAST = 1e-4
"""The same where there is no noise, of all eigenvalues' sum."""


def whitener(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric matrix (width, width) that whitens features with these noisy second moments (width, width).

    It keeps the mean square length of features, as far as that is known. Any positive multiple of the moments gives the
    same; all zeros, or nothing that stands out of the noise, give the identity.
    """
    width = len(moments)
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    total = values.sum()
    if not total > 0:
        return np.eye(width)
    values /= total
    edge = max(-values[0], 0.0)
    if edge >= 1:
        return np.eye(width)
    clear = values > CLEAR * edge
    true = np.where(clear, (values + np.sqrt(np.clip(values**2 - edge**2, 0, None))) / 2, 0.0)
    added = max(SHORTEST * edge, LEAST)
    scales = 1 / np.sqrt(true + added)
    # noise turns eigenvectors, too: what truly lies along the one found is less by the cosine's square
    held = np.where(clear, true - edge**2 / (4 * np.where(clear, true, 1.0)), 0.0)
    rest = max(1 - held.sum(), 0.0) / max(1, width - clear.sum())
    length = np.sum(np.where(clear, held, rest) * scales**2)
    matrix: NDArray[np.float64] = (vectors * (scales / np.sqrt(length))) @ vectors.T
    return matrix
