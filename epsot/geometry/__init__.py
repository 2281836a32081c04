"""What a cost is made of: points and a ground cost, at one resolution or many, or a matrix.

A geometry stores no temperature. It knows its shape, its place, the scale at which annealing starts, and the kernel
that reduces over its pairs; `Geometry` is what all of them answer.
"""

from epsot.geometry.base import Geometry
from epsot.geometry.clouds import PointClouds
from epsot.geometry.grid import Grid
from epsot.geometry.matrices import CostMatrices
from epsot.geometry.matrix import CostMatrix
from epsot.geometry.multiscale import Multiscale
from epsot.geometry.points import PointCloud, extent
from epsot.geometry.separable import Separable

__all__ = [
    "CostMatrices",
    "CostMatrix",
    "Geometry",
    "Grid",
    "Multiscale",
    "PointCloud",
    "PointClouds",
    "Separable",
    "extent",
]
