"""Fused CPU kernels: the reductions of `epsot.kernels.reference` without the (n, m) arrays, compiled by Numba.

From the top: `points` and `matrix` are the two public classes, `fused` what they share; `reductions` and `online` hold
the kernels, `blocks` their phases, `sweeps`, `place`, `products` and `stored` the inner loops, made of `vectors`.
`between` is what happens to vectors between two sweeps; `advance` and `chunks` hold its kernels, `lines` their loops.
`lattice` goes along the lines of lattices: for squares `windows` says which blocks of a line are summed, and `tilted`
sums them; for lengths `cones` walks along the line. Their inner loops are those of `exponents`.
"""

from epsot.kernels.cpu.matrix import Matrix
from epsot.kernels.cpu.points import Points

__all__ = ["Matrix", "Points"]
