"""Pairs per second of the fused CUDA kernels, the share of the device's own bound, and whole solves beside peers.

A region is timed by two events on the device, after a first run that compiles and warms up; the median counts.
The bound is what the units of a multiprocessor give in a clock. A pair of half the squared distance costs

    float32   1 exponential of 16 a clock; d multiply-adds and 2 additions of 128 a clock (d > 3: 3)
    float64   d + 2 operations, and about 25 for an exponential that has no unit of its own, of 64 or 2 a clock

Run as a script it runs the tests that need a GPU and prints the tables: python asv_benchmarks/benchmarks/gpu.py
With --quick it takes small sizes only, with --no-tests it leaves the tests out; --tables chooses among the tables.
"""

import argparse
import contextlib
import datetime
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

import epsot
from epsot import kernels
from epsot.communicator import Threads
from epsot.costs import HalfSquare
from epsot.geometry import Multiscale
from epsot.kernels.cuda import fused, modules, shapes

DTYPES = {"float32": np.float32, "float64": np.float64}
SIZES = [10_000, 100_000, 1_000_000]
DIMENSIONS = [1, 2, 3, 16, 64, 256]
TABLES = ["kernels", "solves", "bursts", "many", "grids", "ranks", "peers"]
SIDES = [256, 1024]  # of images
OPERATIONS = ["softmin", "softmin_pair", "softmin_self", "apply", "cost_gradient"]
SOLVES = [1000, 3000, 10_000, 30_000, 100_000]
SMALL = [500, 1000, 2000, 4000, 8000]
COSTS = {"d = 3": 3, "d = 10": 10, "d = 50": 50, "matrix": 0}
SCALINGS = [0.5, 0.7, 0.9]
EPS = 10.0  # so high that every pair counts: none may be left out
BLUR = 0.05
MANY, SMALL_BLUR = [30_000, 100_000, 1_000_000], 0.01  # the last: nearly all pairs are left out, within a second
RANKS = [30_000, 100_000, 300_000]  # fewer points are shared out by nobody
MOST_AT_ONCE = 100_000  # points of a solve that is not from coarse to fine
SPECIAL, FLOAT_OPERATIONS = 16, 128  # of a multiprocessor in a clock
EXPONENTIAL_64 = 25  # operations, roughly
FAST_DOUBLES = {"60": 32, "70": 32, "80": 32, "90": 64, "100": 64}  # multiply-adds a clock; elsewhere 2
MOST_DENSE = 30_000  # points of a solve that keeps (n, m) matrices
LONGEST = 0.5  # seconds of one sweep at the bound: longer ones are left out


def device():
    """CuPy, if it is installed and a device answers."""
    try:
        import cupy

        cupy.cuda.runtime.getDeviceProperties(0)
    except Exception:
        return None
    return cupy


def seconds(cupy, function, repeats=7):
    """The median time of a region on the device, warm; fewer repeats of what takes longer than a tenth of a second."""
    function()
    found = []
    while len(found) < repeats:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        function()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
        repeats = min(repeats, 1 + int(0.5 / found[-1]))
    return statistics.median(found)


def bound(cupy, dtype, d):
    """Pairs per second at which one unit of the device is always busy."""
    here = cupy.cuda.Device()
    clocks = here.attributes["MultiProcessorCount"] * here.attributes["ClockRate"] * 1e3
    if dtype == "float32":
        return clocks / max(1 / SPECIAL, (d + (2 if d <= 3 else 3)) / FLOAT_OPERATIONS)
    return clocks / ((d + 2 + EXPONENTIAL_64) / FAST_DOUBLES.get(here.compute_capability, 2))


def problem(cupy, dtype, d, n):
    """Points of unit variance in all, and log-densities of a plan near convergence."""
    rng = np.random.default_rng(0)
    x, y = (cupy.asarray((rng.normal(size=(n, d)) / np.sqrt(d)).astype(DTYPES[dtype])) for _ in range(2))
    kernel = kernels.points(x, y, HalfSquare())
    log_weights = cupy.full(n, -np.log(n))
    f = kernel.softmin(log_weights, EPS)
    g = kernel.T.softmin(log_weights + f / EPS, EPS)
    return kernel, log_weights + f / EPS, log_weights + g / EPS, f


def call(operation, kernel, k, h, f):
    """One sweep over all pairs."""
    if operation == "softmin":
        return kernel.softmin(h, EPS, f)
    if operation == "softmin_pair":
        return kernel.softmin_pair(k, h, EPS)
    if operation == "softmin_self":
        return kernel.source().softmin_self(k, EPS)
    if operation == "apply":
        return kernel.apply(k, h, EPS, h[:, None])
    return kernel.cost_gradient(k, h, EPS)


def pairs_per_second(cupy, operation, dtype, d, n):
    arguments = problem(cupy, dtype, d, n)
    return n * n / seconds(cupy, lambda: call(operation, *arguments))


def cubes(cupy, n, d=3):
    rng = np.random.default_rng(1)
    x, y = rng.random((n, d)), rng.random((n, d)) * 0.7 + 0.3
    return cupy.asarray(x.astype(np.float32)), cupy.asarray(y.astype(np.float32))


@contextlib.contextmanager
def quietly():
    """Whether a solve converged is not what is asked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        yield


def solve(x, y, **options):
    """A debiased value and its gradient."""
    with quietly():
        result = epsot.sinkhorn_divergence(x, y, blur=BLUR, **options)
    return result.value, result.grad_x


GEOMETRIES = {"PointCloud": epsot.PointCloud, "Multiscale": Multiscale}


def at_a_small_blur(geometry, x, y):
    """A debiased value and its gradient, from all points or from coarse to fine."""
    with quietly():
        result = epsot.divergence(GEOMETRIES[geometry](x, y), eps=SMALL_BLUR**2)
    return result.value, result.grad_x, result


def transport(x, y):
    """The potentials alone."""
    with quietly():
        return epsot.sinkhorn(x, y, blur=BLUR)


def peers():
    """The losses of other libraries that can be imported, by name."""
    found = {}
    try:
        from flash_sinkhorn import SamplesLoss as Flash

        found["flash-sinkhorn"] = lambda **options: Flash("sinkhorn", blur=BLUR, half_cost=True, **options)
    except ImportError:
        pass
    try:
        from geomloss import SamplesLoss as GeomLoss

        def of_geomloss(backend):
            return lambda **options: GeomLoss("sinkhorn", p=2, blur=BLUR, backend=backend, **options)

        found["GeomLoss, dense"] = of_geomloss("tensorized")
        import pykeops  # noqa: F401

        found["GeomLoss + KeOps"] = of_geomloss("online")
    except ImportError:
        pass
    return found


def marginal_error(cupy, x, y, f, g):
    """The larger L1 violation of the marginals by a pair of potentials, for uniform weights."""
    kernel, n, m = kernels.points(x, y, HalfSquare()), len(x), len(y)
    f, g = (cupy.from_dlpack(z.detach()).astype(np.float64).reshape(-1) for z in (f, g))
    eps = BLUR**2
    rows = cupy.exp((f - kernel.softmin(g / eps - np.log(m), eps)) / eps)
    columns = cupy.exp((g - kernel.T.softmin(f / eps - np.log(n), eps)) / eps)
    return max(float(abs(rows - 1).mean()), float(abs(columns - 1).mean()))


def peer_rows(cupy, name, loss, n, scaling):
    """Seconds of a peer, its error, ours to that error, ours with as many sweeps."""
    import torch

    from epsot.kernels.cuda.exchange import stream_of

    ours = cubes(cupy, n)
    x, y = (torch.utils.dlpack.from_dlpack(z) for z in ours)
    f, g = loss(scaling=scaling, debias=False, potentials=True)(x, y)
    error = marginal_error(cupy, *ours, f, g)
    debiased = loss(scaling=scaling, debias=True)

    def value_and_gradient():
        points = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(debiased(points, y).sum(), [points])
        return gradient

    with stream_of(x):  # events see both libraries
        theirs = seconds(cupy, value_and_gradient, 3)
        to_error = seconds(cupy, lambda: solve(*ours, tol=max(error, 1e-6)), 3)
        schedule = seconds(cupy, lambda: solve(*ours, tol=None, scaling=scaling), 3)
    print(f"{name:<20}{n:>9}{scaling:>9}{error:>10.1e}{theirs:>12.2e}{to_error:>14.2e}{schedule:>14.2e}", flush=True)


class Pairs:
    params = (OPERATIONS, list(DTYPES), DIMENSIONS, SIZES[:2])
    param_names = ("operation", "dtype", "d", "n")
    timeout = 600

    def setup(self, *_):
        self.cupy = device()
        if self.cupy is None:
            raise NotImplementedError("no CUDA device answers")

    def track_pairs_per_second(self, operation, dtype, d, n):
        return pairs_per_second(self.cupy, operation, dtype, d, n)

    track_pairs_per_second.unit = "pairs/s"


class Solves:
    params = (SOLVES,)
    param_names = ("n",)
    timeout = 600

    def setup(self, n):
        self.cupy = device()
        if self.cupy is None:
            raise NotImplementedError("no CUDA device answers")

    def track_seconds(self, n):
        points = cubes(self.cupy, n)
        return seconds(self.cupy, lambda: solve(*points))

    track_seconds.unit = "s, debiased value and gradient to a marginal error of 1e-3"


class ManyPoints:
    params = (MANY,)
    param_names = ("n",)
    timeout = 600

    def setup(self, *_):
        self.cupy = device()
        if self.cupy is None:
            raise NotImplementedError("no CUDA device answers")

    def track_seconds(self, n):
        points = cubes(self.cupy, n)
        return seconds(self.cupy, lambda: at_a_small_blur("Multiscale", *points), 1)

    track_seconds.unit = f"s, debiased value and gradient in 3-D at blur {SMALL_BLUR}, from coarse to fine"


def print_kernels(cupy, sizes, dimensions):
    heads = "".join(f"{name:>15}" for name in OPERATIONS)
    print(f"\n{'dtype':<9}{'d':>5}{'n = m':>9}{heads}{'bound':>12}{'share':>7}")
    for dtype in DTYPES:
        for d in dimensions:
            for n in sizes:
                most = bound(cupy, dtype, d)
                if n * n / most > LONGEST:
                    continue
                # A gradient recomputes the pairs for every 32 coordinates, and has a product of its own.
                rates = [
                    pairs_per_second(cupy, name, dtype, d, n)
                    if name != "cost_gradient" or n * n / most * max(2, d / 16) < LONGEST
                    else np.nan
                    for name in OPERATIONS
                ]
                cells = "".join(f"{rate:15.2e}" for rate in rates)
                print(f"{dtype:<9}{d:>5}{n:>9}{cells}{most:12.2e}{rates[0] / most:7.2f}", flush=True)


@contextlib.contextmanager
def bursts(wanted):
    """Many steps in one launch wherever that is possible, or nowhere: what `shapes.bursts` decides by size."""
    rule, asked = shapes.bursts, fused.unproven
    shapes.bursts, fused.unproven = lambda n, m, *_: max(n, m) <= shapes.BURST_LONGEST, lambda: wanted
    try:
        yield
    finally:
        shapes.bursts, fused.unproven = rule, asked


def print_solves(cupy, sizes):
    """Of small problems most is the time between launches: it shows in that of an iteration."""
    heads = ("n = m", "debiased", "transport", "iterations", "of each", "in bursts", "one by one")
    print(f"\nseconds: a debiased value and gradient, and one transport; float32, d = 3, blur {BLUR}, tol 1e-3")
    print(f"{heads[0]:>9}{''.join(f'{head:>12}' for head in heads[1:])}")
    for n in sizes:
        points = cubes(cupy, n)
        debiased = seconds(cupy, lambda points=points: solve(*points), 5)
        plain = seconds(cupy, lambda points=points: transport(*points), 5)
        nit = transport(*points).nit
        ways = []
        for wanted in (True, False):
            with bursts(wanted):
                ways.append(seconds(cupy, lambda points=points: solve(*points), 5))
        cells = "".join(f"{way:>12.2e}" for way in ways)
        print(f"{n:>9}{debiased:>12.2e}{plain:>12.2e}{nit:>12}{plain / nit:>12.2e}{cells}", flush=True)


def print_bursts(cupy, sizes):
    """An iteration of a transport both ways: where one way is better, and what the rule for bursts says."""
    print(f"\nmicroseconds of an iteration; float32, blur {BLUR} times the root of d / 3, tol 1e-3")
    print(f"{'cost':<9}{'n = m':>9}{'iterations':>12}{'in bursts':>12}{'one by one':>12}  rule")
    here = cupy.cuda.Device().id
    device_is = fused.multiprocessors(cupy, here), fused.attribute(cupy, here, fused.DOUBLE_RATIO)
    for name, d in COSTS.items():
        for n in sizes:
            x, y = cubes(cupy, n, d or 3)
            geometry = epsot.PointCloud(x, y)
            if name == "matrix":
                geometry = epsot.CostMatrix(((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2) / 2)
            eps = BLUR**2 * (d or 3) / 3

            def run(geometry=geometry, eps=eps):
                with quietly():
                    return epsot.solve(geometry, eps=eps)

            nit, ways = run().nit, []
            for wanted in (True, False):
                with bursts(wanted):
                    ways.append(1e6 * seconds(cupy, run, 5) / nit)
            rule = "in bursts" if shapes.bursts(n, n, d, "float" if d else "double", *device_is) else "one by one"
            print(f"{name:<9}{n:>9}{nit:>12}{''.join(f'{way:>12.1f}' for way in ways)}  {rule}", flush=True)


def print_many(cupy, sizes):
    """From where on it pays to go from coarse to fine."""
    print(f"\nseconds: a debiased value and gradient; float32, d = 3, blur {SMALL_BLUR}, tol 1e-3")
    print(f"{'geometry':<20}{'n = m':>9}{'seconds':>12}{'iterations':>12}{'of a self term':>16}")
    for n in sizes:
        points = cubes(cupy, n)
        for name in GEOMETRIES if n <= MOST_AT_ONCE else ["Multiscale"]:
            taken = seconds(cupy, lambda name=name, points=points: at_a_small_blur(name, *points), 1)
            result = at_a_small_blur(name, *points)[2]
            print(f"{name:<20}{n:>9}{taken:>12.2e}{result.xy.nit:>12}{result.xx.nit:>16}", flush=True)


@contextlib.contextmanager
def passes(wanted):
    """The CUDA passes over lattices, or the portable ones."""
    asked, modules.unproven = modules.unproven, lambda: wanted
    try:
        yield
    finally:
        modules.unproven = asked


def print_grids(cupy, sides):
    """Images of the unit square: softmins in which all pixels count, or the nearest only, both ways, and solves."""
    print("\nseconds: softmins at a blur of half the image and of a pixel; a debiased value with its gradient at that")
    heads = "".join(f"{head:>12}" for head in ("blur 0.5", "portable", "blur 1 px", "portable", "solve", "iterations"))
    print(f"{'pixels':<13}{heads}")
    for side in sides:
        grid, random = epsot.Grid((side, side), spacing=1 / side), np.random.default_rng(0)
        blobs = [cupy.asarray((z + 0.01).astype(np.float32)) for z in random.random((2, side, side))]
        a, b = (z / z.sum() for z in blobs)
        cells, h = [], cupy.log(a).ravel().astype(np.float64)
        for blur in (0.5, 1 / side):
            for wanted in (True, False):
                with passes(wanted):
                    kernel = epsot.PointCloud(grid, grid).suited(a, b).kernel()
                    cells.append(seconds(cupy, lambda kernel=kernel, h=h, blur=blur: kernel.softmin(h, blur**2)))

        def run(grid=grid, weights=(a, b), side=side):
            with quietly():
                result = epsot.sinkhorn_divergence(grid, grid, *weights, blur=1 / side)
            return result.value, result.grad_a, result

        with passes(True):
            nit = run()[2].xy.nit
            cells.append(seconds(cupy, run, 3))
        print(f"{f'{side} x {side}':<13}{''.join(f'{cell:>12.2e}' for cell in cells)}{nit:>12}", flush=True)


def print_ranks(cupy, sizes):
    """What it costs to be one of several GPUs, without the others: meetings, and NCCL from a device to itself."""
    from cupy.cuda import nccl

    if not nccl.available:
        print("\nCuPy has found no NCCL: pip install nvidia-nccl-cu13, or -cu12")
        return
    print(f"\nseconds: a debiased value and gradient, alone and as the one rank of NCCL; float32, d = 3, blur {BLUR}")
    print(f"{'n = m':>9}{'alone':>12}{'one rank':>12}{'ratio':>9}")
    for n in sizes:
        x, y = cubes(cupy, n)

        def run(comm, x=x, y=y):
            with x.device:
                return seconds(cupy, lambda: solve(x, y, comm=comm), 5)

        with passes(True), bursts(False):
            alone, (ranked,) = run(None), Threads.run(1, run)
        print(f"{n:>9}{alone:>12.3e}{ranked:>12.3e}{ranked / alone:>9.3f}", flush=True)


def print_peers(cupy, sizes):
    found = peers()
    if not found:
        print("\nno peer can be imported: geomloss, or flash_sinkhorn")
        return
    heads = ("error", "seconds", "epsot, error", "epsot, passes")
    print(f"\n{'peer':<20}{'n = m':>9}{'scaling':>9}{heads[0]:>10}{heads[1]:>12}{heads[2]:>14}{heads[3]:>14}")
    for name, loss in found.items():
        for n in sizes:
            for scaling in SCALINGS if "dense" not in name or n <= MOST_DENSE else ():
                peer_rows(cupy, name, loss, n, scaling)


def first_call(cupy):
    """Seconds until the first solve of a process has its result, compilation included unless CuPy's cache has it."""
    start = datetime.datetime.now()
    solve(*cubes(cupy, 1000))
    cupy.cuda.Device().synchronize()
    return (datetime.datetime.now() - start).total_seconds()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--no-tests", action="store_true", help="no tests, only the tables")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--solves", type=int, nargs="+", default=SOLVES)
    parser.add_argument("--small", type=int, nargs="+", default=SMALL)
    parser.add_argument("--many", type=int, nargs="+", default=MANY)
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="sizes for the one rank of NCCL")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the images of grids")
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--peers", type=int, nargs="+", help="sizes beside peers; by default those of the solves")
    parser.add_argument("--tables", choices=TABLES, nargs="+", default=TABLES, help="by default all")
    options = parser.parse_args(arguments)
    cupy = device()
    if cupy is None:
        sys.exit("no CUDA device answers, or CuPy is not installed")
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    driver = cupy.cuda.runtime.driverGetVersion()
    print(f"{name}, driver {driver}, CuPy {cupy.__version__}, {datetime.date.today()}, {' '.join(sys.argv)}")
    print(f"first solve of this process: {first_call(cupy):.1f} s")
    if not options.no_tests:
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"], cwd=root, check=False)
    sizes, solves = (options.sizes[:1], options.solves[:3]) if options.quick else (options.sizes, options.solves)
    for table in options.tables:
        if table == "kernels":
            print_kernels(cupy, sizes, options.dimensions)
        elif table == "solves":
            print_solves(cupy, solves)
        elif table == "bursts":
            print_bursts(cupy, options.small[:1] if options.quick else options.small)
        elif table == "many":
            print_many(cupy, options.many[:1] if options.quick else options.many)
        elif table == "grids":
            print_grids(cupy, options.sides[:1] if options.quick else options.sides)
        elif table == "ranks":
            print_ranks(cupy, options.ranks[:1] if options.quick else options.ranks)
        else:
            print_peers(cupy, options.peers or solves)


if __name__ == "__main__":
    main()
