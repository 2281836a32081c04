"""
Many measures on many processes
===============================

A distance matrix between many measures is many problems that know nothing of one another: any scheduler shares them
out. Here are joblib and Dask; with MPI it is ``epsot.pairwise(..., comm=comm)``, see :doc:`/processes`.
"""

# %%
# The measures
# ------------
#
# Clouds of different sizes.

import numpy as np

import epsot


def measures(count=12):
    rng = np.random.default_rng(0)
    return [rng.normal(k / 4, 1.0, (60 + 5 * k, 2)) for k in range(count)]


# %%
# Work for one process
# --------------------
#
# Some rows of the matrix, right of the diagonal. Processes share the cores, so that each has one thread.


def rows(clouds, some):
    """The divergences of some measures from those after them."""
    table = np.zeros((len(clouds), len(clouds)))
    for i in some:
        if i + 1 < len(clouds):
            table[i, i + 1 :] = epsot.pairwise([clouds[i]], clouds[i + 1 :], blur=0.3, workers=1).value[0]
    return table


def symmetric(tables):
    half = np.sum(tables, axis=0)
    return half + half.T


# %%
# By joblib
# ---------


def by_joblib(clouds, processes=2):
    from joblib import Parallel, delayed

    parts = [range(k, len(clouds), processes) for k in range(processes)]
    return symmetric(Parallel(n_jobs=processes)(delayed(rows)(clouds, part) for part in parts))


# %%
# By Dask
# -------
#
# The client of a cluster sends the measures once, and hands out rows; a worker that dies costs its rows only.


def by_dask(client, clouds, parts=4):
    known = client.scatter(clouds, broadcast=False, hash=False)
    futures = [client.submit(rows, known, range(k, len(clouds), parts), pure=False) for k in range(parts)]
    return symmetric(client.gather(futures))


if __name__ == "__main__":
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        print(np.abs(by_dask(client, measures()) - epsot.pairwise(measures(), blur=0.3).value).max())
