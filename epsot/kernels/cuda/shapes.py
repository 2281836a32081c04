"""The shapes of the kernels: the one table of numbers chosen for speed, and how a problem is cut into launches.

They rest on what a multiprocessor of the Hopper generation gives in a clock: 16 exponentials, 128 multiply-adds, 64 of
them in float64, and 128 bytes of shared memory. `asv_benchmarks/benchmarks/gpu.py` measures them; what an H200 said is
in docs/performance.rst, and here where a number was chosen by it.

near    A pair needs d + 2 additions or multiply-adds and one exponential; 32 lanes times 4 rows take 8 clocks of
        exponentials for one column, which is d + 1 numbers, read as 16-byte vectors and broadcast. Two warps a block
        keep the rows of a block few, 256, and so the centres local, and many the tiles that can be left out. A column
        is moved to the origins of the block in float64, about 5 d operations for 256 rows. A tile of 128 columns is
        2048 clocks of exponentials for them, 10 d of moving, and 25 d, shared with 63 others, of testing its box.
        Of a million points in 3-D at blur 0.01 (`python -m asv_benchmarks.tiles` counts) a block sums 79 to 89 of 7813
        tiles, fills 86 to 317, and makes 10 to 45 tests of 64 boxes, search for the image included, because groups of
        64 tiles have boxes, too: without, each search and each sum would make 123. They are 1 to 2 % of the clocks of
        the sums, and would be 11 %.
tiled   A thread has 8 x 4 products: 12 numbers from shared memory for 32 multiply-adds.
stored  The matrix is read once, in its own type: what counts is that lanes read neighbours. Logits and exponentials
        are float64, 30 operations for an entry.

vectors One block goes through all stages of a computation in one launch; longer vectors have more blocks, and a launch
        for each stage. A multiprocessor reads 64 bytes in a clock, and what the acceleration keeps is some 40 numbers
        for each column: 20 microseconds for 8192 of them.

burst   Many steps of a small problem in one launch. A pair of points in space costs 8 operations in float64, of which a
        multiprocessor of this generation gives 64 in a clock, and others 2; an exponential and a conversion to float32
        come from one unit, 16 in a clock. Both are an eighth of a clock: 1000 points a side are 0.6 microseconds of a
        sum on 132 multiprocessors, 8192 are 36, 11 600 are 73. An iteration one by one takes 330. What counts at 1000
        is latency: a warp has two rows and reads 32 columns with each load, eight loads at once. Of more coordinates
        a pair needs two operations each, and a load for two rows that comes from the second level cache where warps
        are apart. Predicted from the compiled loop, not yet measured.

items   Each item of a batch has a block, whose steps meet nobody else. All of it is float64, as the sweeps of a batch
        are: some 40 operations a pair with the exponential, 0.6 of a clock. A step of 64 x 64 points is 8192 pairs,
        5000 clocks or 3 microseconds of a multiprocessor, on which two blocks take turns; 30 steps of 10 000 such items
        on 132 are 7 milliseconds. The sweeps write and read all logits some eight times, 1.3 milliseconds for each of
        these steps, and go on until the slowest item is done. Predicted, not yet measured.

lattice A line of a lattice has a block. A strip of 32 rows and one of 32 columns are 130 instructions of a warp in
        blocks of 32 in float32, of which 19 are in float64: 150 clocks of one of the four schedulers of a
        multiprocessor. In blocks of 8 they are 420 clocks, and to find and to prove the window of a strip of rows takes
        some 500. An axis of 1024 x 1024 pixels is 0.19 ms on 132 multiprocessors at 1.7 GHz with all columns in every
        window, and 0.065 ms with the three strips of a blur of one pixel; up to twice as much where loads are waited
        for. Predicted from the compiled loops, not yet measured.

Kernels that sum values in registers have fewer rows a thread. More than a few values of `tiled` points, and the
coordinates of their gradients, are a second product of 4 x 4 results in each thread, 2 x 4 in float64.
"""

from __future__ import annotations

from typing import NamedTuple

FRAME = 256  # rows with a common centre, as in forms.cu
NEAR_TILE = 128  # columns of near points that are left out together
GROUP = 64  # tiles in the larger boxes, as in forms.cu
BOXES_FROM = 32_768  # columns: of fewer the boxes would cost two launches and save little: 0.06 ms of search for 10 000
CHUNK = 4  # columns of values that a block sums at once in registers, as in forms.cu
WIDTH = 32  # and in shared memory
BANDS = 32  # of rows and of columns in a two-sided sweep: 32 * 32 blocks of 4 warps fill 132 multiprocessors
WAVES = 8  # blocks for each that fits on the device at once: short enough a tail where blocks skip tiles
FEW_TILES = 4  # of a part: finding the image takes a block about as long as one
MOST_PARTS = 65_535  # the limit of a grid's second axis
PLAIN_THREADS = 256  # of a block whose threads work on one entry each
BOX_THREADS = 1024  # of the one block that finds the box around a cloud: 0.1 ms for a million points
VECTOR_THREADS = 512  # of a block that works on vectors between two sweeps
ONE_BLOCK = 8192  # numbers of a vector that one block works on: 16 for each thread
MOST_BLOCKS = 64  # of longer vectors: the next stage adds up what they leave
BURST_THREADS = 384  # of a block that makes many steps with all others, as in burst.cu; one on each multiprocessor
BURST_ROWS = 2  # of a warp of such a block
BURST_STEPS = 64  # so many at most: the host can be interrupted in between
BURST_LONGEST = 16_384  # points of a side
BURST_PAIRS = (
    2**20
)  # for a multiprocessor, of points in space, in float32, where float64 has half the rate: 0.07 ms a sum
BURST_ENTRIES = (
    2**25
)  # of a matrix, whose columns are read a sector for every two numbers: 0.1 ms of a second level cache
BURST_SHARE = 1024  # entries of a vector for each block that works on it between two sums ...
BURST_SHARES = 8  # ... and so many blocks at most

ITEM_THREADS = 128  # of a block that makes the steps of one item of a batch, as in burst.cu; two on each multiprocessor
ITEM_PAIRS = 2**16  # of such an item; larger ones are better shared by all blocks

STRIP = 32  # rows, or columns, of a lattice that a warp sums at once, as in lattice.cu
LATTICE_WARPS = 4  # of a block that has a line, at most: registers for four such blocks in float32, three in float64
LATTICE_ROOM = 1024  # places of a line that have room in shared memory
LATTICE_SIDES = (32, 8)  # of blocks, of those that the range of numbers allows the largest; 1: columns one by one


class Shape(NamedTuple):
    """A form of the kernels, as C++, and what a launch must know of it."""

    name: str
    threads: int
    rows: int  # of a block
    tile: int  # columns that are handled at once
    resident: int  # blocks that a multiprocessor has registers for, of plain sums


def near(real: str, cost: int, dim: int, rows: int) -> Shape:
    """Points with d <= 3; `rows` of a thread."""
    threads, columns = 64, 4 if real == "float" else 2
    name = f"Near<{real}, {cost}, {dim}, {threads}, {rows}, {columns}, {NEAR_TILE}>"
    resident = 8 if real == "float" else 4 if cost == 0 and rows == 4 else 6
    return Shape(name, threads, threads * rows, NEAR_TILE, resident)


def tiled(real: str, cost: int, rows: int) -> Shape:
    """Points of any dimension; `rows` of a thread, 16 coordinates at a time."""
    threads, lanes, columns = 128, 16, 4 if real == "float" else 2
    return Shape(
        f"Tiled<{real}, {cost}, {threads}, {rows}, {columns}, 16>",
        threads,
        threads // lanes * rows,
        lanes * columns,
        3 if real == "float" and rows == 8 else 2,
    )


def stored(entry: str, along: bool) -> Shape:
    """A matrix: `along` a warp reads neighbouring columns of 4 rows, else neighbouring rows, 2 for each thread."""
    threads, lanes, rows = (128, 32, 4) if along else (128, 1, 2)
    name = f"Stored<{entry}, {'true' if along else 'false'}, {threads}, {rows}, 4, 256>"
    return Shape(name, threads, threads // lanes * rows, 256, 3)


def groups(m: int) -> int:
    """Groups of tiles that have boxes, 0 where the columns are too few."""
    return -(-m // (NEAR_TILE * GROUP)) if m > BOXES_FROM else 0


def parts(shape: Shape, n: int, m: int, chunks: int, multiprocessors: int) -> int:
    """Into how many parts the columns are cut: few rows fill the device, too, and the last wave of blocks is full."""
    blocks, tiles, slots = -(-n // shape.rows) * chunks, -(-m // shape.tile), multiprocessors * shape.resident
    most = max(1, tiles // FEW_TILES, min(slots // blocks, tiles))  # rounded down: one block more would be a wave
    wanted = max(1, min(most, slots * WAVES // blocks, MOST_PARTS))

    def filled(count: int) -> float:  # of the time of so many parts
        return round(blocks * count / slots / -(-blocks * count // slots), 2)

    waves = range(1, 2 * max(WAVES, -(-blocks // slots)) + 1)
    counts = sorted({wanted, *(slots * many // blocks for many in waves)})  # the most in so many waves
    near = [count for count in counts if wanted <= 2 * count and count <= min(2 * wanted, most, MOST_PARTS)]
    return max(near, key=lambda count: (filled(count), -abs(count - wanted)))


def band(shape: Shape, n: int) -> int:
    """Rows, or columns, of a band: a multiple of those of a block and of a tile, which are powers of two."""
    unit = max(shape.rows, shape.tile)
    units = -(-n // unit)
    return -(-units // BANDS) * unit


def few(n: int, m: int, d: int, real: str, multiprocessors: int, double_ratio: int) -> bool:
    """Whether a sum takes no longer than what is around it. double_ratio: by which a device is slower in float64."""

    def operations(d: int, real: str, double_ratio: int) -> int:  # of a pair; other d than 2 and 3 wait for coordinates
        return ((2 if d in (2, 3) else 6) * d + 5 + (0 if real == "float" else 25)) * double_ratio

    most = BURST_PAIRS * multiprocessors * operations(3, "float", 2)
    return n * m * operations(d, real, double_ratio) <= most


def bursts(n: int, m: int, d: int, real: str, multiprocessors: int, double_ratio: int) -> bool:
    """Whether many steps are worth a launch of their own."""
    sides = 0 < n <= BURST_LONGEST and 0 < m <= BURST_LONGEST
    return sides and few(n, m, d, real, multiprocessors, double_ratio) and (d > 0 or n * m <= BURST_ENTRIES)


def burst_blocks(n: int, m: int, multiprocessors: int) -> int:
    """Blocks that run at once: rows are dealt out to blocks first, then to their warps."""
    return min(multiprocessors, -(-max(n, m) // BURST_ROWS))


def burst_shares(n: int, blocks: int) -> int:
    """Blocks among which a vector is shared between two sums; all have to meet more often where they are several."""
    return 1 if n <= 2 * BURST_SHARE else min(-(-n // BURST_SHARE), BURST_SHARES, blocks)


def item_bursts(n: int, m: int) -> bool:
    """Whether the items of a batch, of at most so many points, are worth a block each."""
    return n * m <= ITEM_PAIRS


def vector_blocks(n: int) -> int:
    """Blocks for vectors of length n whose sums are needed."""
    return 1 if n <= ONE_BLOCK else min(-(-n // (4 * VECTOR_THREADS)), MOST_BLOCKS)


def plain_blocks(n: int) -> int:
    """Blocks for vectors of length n whose entries are worked on one by one."""
    return max(1, -(-n // PLAIN_THREADS))
