"""Which rows and columns of a matrix its allowed pairs connect."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.arrays import to_numpy
from epsot.costs import Array

BLOCK_ELEMENTS = 2**20  # entries of the matrix that are looked at together


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
        order = np.argsort(labels, kind="stable")
        begins = np.searchsorted(labels[order], np.arange(labels.max() + 1))
        # (rows of the block, components): what was connected before counts as one column
        rows, groups = np.nonzero(np.logical_or.reduceat(allowed[:, order], begins, axis=1))
        nodes = len(allowed) + len(begins)
        graph = coo_array((np.ones(len(rows)), (rows, len(allowed) + groups)), shape=(nodes, nodes))
        merged = connected_components(graph, directed=False)[1]
        labels = np.unique(merged[len(allowed) :], return_inverse=True)[1][labels]
    return labels[first], labels
