"""Preparation of rows that several measures share."""

import numpy as np

from netsim.similarity.rows import moderate


def centred(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, d) minus their mean, in float64 and of moderate size; exactly 0 where a feature is constant."""
    rows = moderate(np.asarray(rows, dtype=np.float64))
    if not len(rows):
        return rows
    shifted = rows - rows[0]
    return shifted - shifted.mean(axis=0)
