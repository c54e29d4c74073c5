"""What several measures begin with."""

import numpy as np


def centred(rows: np.ndarray) -> np.ndarray:
    """(n, d) float64 about the mean; exactly 0 where a feature is constant."""
    rows = np.asarray(rows, dtype=np.float64)
    if not len(rows):
        return rows
    shifted = rows - rows[0]
    return shifted - shifted.mean(axis=0)
