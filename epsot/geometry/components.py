"""Which rows and columns of a matrix its allowed pairs connect."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.arrays import to_numpy
from epsot.costs import Array

BLOCK_ELEMENTS = 2**22  # entries of the matrix that are turned into edges at once


def components(C: Array, xp: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the rows and of the columns, equal where a chain of finite entries connects them.  -> (n,), (m,)

    Every row and every column has a finite entry.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, m = C.shape
    first = np.zeros(n, dtype=np.int64)  # a column that each row is connected to
    labels = np.arange(m)  # of the columns, by the rows seen so far
    step = max(1, BLOCK_ELEMENTS // m)
    for start in range(0, n, step):
        if not labels.any():  # one component: it holds all rows that follow
            break
        stop = min(start + step, n)
        allowed = to_numpy(xp.isfinite(C[start:stop, :]))
        first[start:stop] = allowed.argmax(axis=1)
        rows, columns = np.nonzero(allowed)
        nodes = len(allowed) + int(labels.max()) + 1
        edges = (np.ones(len(rows)), (rows, len(allowed) + labels[columns]))
        merged = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)[1]
        labels = np.unique(merged[len(allowed) :], return_inverse=True)[1][labels]
    return labels[first], labels
