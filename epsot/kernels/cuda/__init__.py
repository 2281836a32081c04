"""Fused CUDA kernels for CuPy arrays: the reductions of `epsot.kernels.reference` without the (n, m) arrays.

From the top: `points` and `matrix` are the two public classes, `exchange` gives them to tensors of PyTorch; `two_sided`
and `fused` are what they share, `clouds` what they prepare, `vectors` what happens between two sweeps, `bursts` many
sweeps of a small problem and all between them, `batches` and `items` the same for each of many problems, `lattice` the
sums along the axes of grids, `shapes` the table of launch shapes, `modules` the compiler. The kernels: `reduce.cu` and
`pair.cu`, for the forms of a cost in `near.cu`, `tiled.cu` and `stored.cu`, which `forms.cu` explains; `numbers.cu` is
below all, `product.cu` sums many values, `order.cu` sorts points along a curve, and `vectors.cu` works on vectors;
`burst.cu` has sums of its own for small problems, and `items.cu` gives each of many problems a block; `lattice.cu`
gives one to each line of a lattice.

CuPy is imported in functions only. Everything runs on the device of the inputs and on CuPy's current stream, and no
method waits for the device.
"""

from epsot.kernels.cuda.matrix import Matrix
from epsot.kernels.cuda.points import Points

__all__ = ["Matrix", "Points"]
