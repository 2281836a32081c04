"""How many tiles a block of rows tests, fills and sums among a million columns: counted, on any machine.

The kernels are executed on the CPU by the emulator of the tests, in a version that counts, for eight blocks of 256
rows. The plan is that between uniform cubes of side 1 and 0.7 (potentials in closed form), and of a cube with itself.

From the root of the repository: python -m asv_benchmarks.tiles
"""

import argparse

import numpy as np

from epsot.costs import HalfSquare
from epsot.kernels.cuda import modules, shapes
from tests.cuda import bridge, emulation, fake_cupy
from tests.cuda.instantiations import groups

BLOCKS, FRAME = 8, shapes.FRAME
MULTIPROCESSORS = 132
# In the source: GROUP tests at once; a tile that is filled; one that is summed.
COUNTED = {
    "double share = minus_infinity(), most = form.shared.bar;": 0,
    "const T bound = form.fill(tile);": 1,
    "if (!walk.keeps(bound)) continue;": 2,
}


def count(x, y, g, blur, operation, guessed):
    """Tests of 64, tiles filled, tiles summed, each for a block of rows on average."""
    eps, m = blur**2, len(y)
    label = f"{'float' if x.dtype == np.float32 else 'double'}, square, d = {x.shape[1]}"
    h = g / eps - np.log(m)
    fake_cupy.build_all = lambda code: None
    code = modules.source()
    for line, counter in COUNTED.items():
        assert line in code
        code = code.replace(line, f"{line} if (threadIdx.x == 0) ++emulator::counters[{counter}];")
    counting = emulation.Kernels(code, groups()[label])
    with fake_cupy.installed():
        kernel = bridge.points(x, y, HalfSquare())
        order = kernel.kernel.x_cloud.order.data_
        chosen = np.linspace(0, len(x) // FRAME - 1, BLOCKS).astype(int) * FRAME
        rows = x[order[(chosen[:, None] + np.arange(FRAME)).ravel()]]
        kernel = kernel.at(rows)
        kernel.kernel.x_cloud.order = fake_cupy.ndarray(np.arange(len(rows)))  # whole blocks of the million
        f = kernel.softmin(h, eps)
        fake_cupy.COMPILED.update(dict.fromkeys(groups()[label], counting))
        modules.function.cache_clear()
        blocks = -(-len(rows) // kernel.kernel.form(operation).rows)
        counting.counted()
        if operation == "SUMS":
            kernel.softmin(h, eps, f if guessed else None)
        elif operation == "SLOPES":
            kernel.cost_gradient(f / eps, h, eps)
        else:
            kernel.softmin_pair(f / eps, h, eps)
        numbers = counting.counted()
        modules.function.cache_clear()
        fake_cupy.COMPILED.clear()
    return [number / blocks for number in numbers]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--blurs", type=float, nargs="+", default=[0.05, 0.02, 0.01])
    options = parser.parse_args()
    parts = shapes.parts(shapes.near("float", 0, 3, 4), options.size, options.size, 1, MULTIPROCESSORS)
    shapes.parts = lambda *_: parts  # as for all blocks, not for the few that are run
    rng = np.random.default_rng(0)
    x, y = (rng.random((options.size, 3)).astype(np.float32) for _ in range(2))
    smaller = 0.3 + 0.7 * y
    potential = 0.5 * (smaller**2).sum(axis=1) - (0.5 * smaller**2 - 0.3 * smaller).sum(axis=1) / 0.7
    print(f"{'plan':<12}{'blur':>6}{'operation':>12}{'tests of 64':>13}{'filled':>10}{'summed':>10}{'of':>8}")
    for blur in options.blurs:
        for name, columns, g in (("itself", x, np.zeros(len(x))), ("0.7", smaller, potential)):
            for operation, guessed in (("SUMS", True), ("SUMS", False), ("SLOPES", True)):
                tests, filled, summed = count(x, columns, g, blur, operation, guessed)
                label, tiles = operation if guessed else "no guess", -(-len(columns) // shapes.NEAR_TILE)
                cells = f"{label:>12}{tests:>13.1f}{filled:>10.1f}{summed:>10.1f}{tiles:>8}"
                print(f"{name:<12}{blur:>6}{cells}", flush=True)


if __name__ == "__main__":
    main()
