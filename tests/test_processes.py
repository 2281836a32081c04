"""Processes and threads: fork, spawn, two threads at once, interrupts, pickles, and folders that cannot be written."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.geometry import Multiscale

PACKAGE = Path(epsot.__file__).parent
SETUP = """
    import os, signal, sys, threading, time
    import numpy as np
    import epsot

    rng = np.random.default_rng(3)
    x, y = rng.random((700, 3)), rng.random((600, 3))  # more than one block of rows, so that the threads have work

    def solve(seed=0, workers=2):
        return float(epsot.sinkhorn_divergence(x[seed:], y, blur=0.1, workers=workers).value)
"""


def run_script(folder: Path, body: str, env: dict[str, str] | None = None, timeout: float = 120) -> str:
    """The output of a script in a process of its own."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SETUP) + textwrap.dedent(body))
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork(tmp_path: Path) -> None:
    """prange under GNU OpenMP kills a forked child, a pool of the parent has no threads there: ours is made anew."""
    run_script(
        tmp_path,
        """
        before = solve()  # the pool of the parent runs
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(0 if solve() == before and solve(workers=1) == before else 1)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        assert solve() == before
        """,
    )


@forks
def test_after_fork_during_a_solve(tmp_path: Path) -> None:
    """A fork while another thread solves must not inherit a lock that nobody will release."""
    run_script(
        tmp_path,
        """
        expected = solve()
        going = True
        def work():
            while going:
                solve()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(30)
                    os._exit(0 if solve() == expected else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            going = False
            thread.join()
        """,
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    """A pool of processes maps over problems, whichever way its workers start, and whole results come back."""
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    run_script(
        tmp_path,
        f"""
        def result(seed):
            return epsot.sinkhorn(x[seed:40], y[:30], blur=0.2)

        if __name__ == "__main__":
            import multiprocessing
            expected = [solve(seed) for seed in range(3)]
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                assert pool.map_async(solve, range(3)).get(100) == expected
                for seed, other in enumerate(pool.map_async(result, range(2)).get(100)):
                    np.testing.assert_array_equal(other.grad_x, result(seed).grad_x)
        """,
    )


@pytest.mark.parametrize("workers", [1, 2, None])
def test_two_threads_at_once(workers: int | None) -> None:
    """prange's workqueue layer aborts the process when two threads enter it."""
    rng = np.random.default_rng(4)
    clouds = [(rng.random((500 + 10 * k, 2)), rng.random((450, 2))) for k in range(4)]

    def solve(k: int) -> Any:
        return epsot.sinkhorn_divergence(*clouds[k], blur=0.1, workers=workers)

    expected = [solve(k).grad_x for k in range(4)]
    found: dict[int, Any] = {}
    start = threading.Barrier(4)

    def work(k: int) -> None:
        start.wait()
        found[k] = solve(k).grad_x

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for k in range(4):
        np.testing.assert_array_equal(found[k], expected[k])


def test_one_result_read_by_many_threads() -> None:
    """What is computed on first use may be first used by several threads."""
    rng = np.random.default_rng(5)
    x, y = rng.random((300, 2)), rng.random((200, 2))
    result, alone = epsot.sinkhorn(x, y, blur=0.1), epsot.sinkhorn(x, y, blur=0.1)
    found: list[Any] = []
    start = threading.Barrier(4)

    def read() -> None:
        start.wait()
        found.append((result.value, result.plan @ result.g, result.grad_x, result.gap))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    for value, moved, grad_x, gap in found:
        assert value == alone.value
        np.testing.assert_array_equal(moved, alone.plan @ alone.g)
        np.testing.assert_array_equal(grad_x, alone.grad_x)
        assert gap == alone.gap


def test_first_uses_do_not_wait_for_one_another() -> None:
    """A lock that all results share, as in `functools.cached_property` before Python 3.12, would make threads wait for
    the work of others; and a child forked in the meantime would wait for ever.
    """
    inside, release = threading.Event(), threading.Event()

    class Slow(epsot.Cost):
        degree = 2.0

        def value(self, x: Any, y: Any) -> Any:
            return np.sum((x - y) ** 2, axis=-1)

        def gradient(self, x: Any, y: Any) -> Any:
            inside.set()
            release.wait(30)
            return 2 * (x - y)

    x, y = np.asarray([[0.0], [1.0]]), np.asarray([[2.0], [5.0]])
    slow = epsot.solve(epsot.PointCloud(x, y, cost=Slow()), eps=0.5)
    quick = epsot.solve(epsot.PointCloud(x, y), eps=0.5)
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(slow.grad_x))
    second = threading.Thread(target=lambda: found.append(quick.grad_x), daemon=True)
    first.start()
    assert inside.wait(30)
    second.start()
    second.join(10)
    waited = second.is_alive()
    release.set()
    first.join(30)
    second.join(30)
    assert not waited
    assert len(found) == 2


def test_kernels_run_no_python_of_numba() -> None:
    """In a Python function that Numba calls after a kernel, Ctrl-C would be raised as a SystemError."""
    found = set()

    def note(frame: Any, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("numba"):
            caller = frame.f_back.f_code
            found.add((module, frame.f_code.co_name, caller.co_filename, caller.co_name))

    def work(d: int, dtype: type) -> None:
        rng = np.random.default_rng(3)
        x, y = rng.random((700, d)).astype(dtype), rng.random((600, d)).astype(dtype)
        result = epsot.sinkhorn_divergence(x, y, blur=0.1, workers=1)
        assert result.grad_x.shape == x.shape
        C = ((x[:, None] - y) ** 2).sum(axis=-1)
        plan = epsot.solve(epsot.CostMatrix(C), eps=0.01, workers=1).plan
        assert plan.barycentric_map(y).shape == x.shape

    for d, dtype in [(3, np.float64), (3, np.float32), (5, np.float64), (5, np.float32)]:
        work(d, dtype)  # compiles
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            work(d, dtype)
        finally:
            sys.setprofile(before)
    assert not found


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_interrupt(tmp_path: Path) -> None:
    """Ctrl-C ends a long solve within a moment, and the next solve is none the worse."""
    run_script(
        tmp_path,
        """
        big_x, big_y = rng.random((4000, 3)), rng.random((4000, 3))
        epsot.sinkhorn(big_x, big_y, blur=0.1)  # every kernel is compiled, and the signal comes while one works
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        sent = []
        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        for workers in (1, 1, 2, 2):
            expected = solve(workers=workers)
            threading.Timer(0.3, interrupt).start()
            try:
                epsot.sinkhorn(big_x, big_y, blur=1e-3, tol=0, max_iter=10**6, workers=workers)
            except KeyboardInterrupt:
                waited = time.perf_counter() - sent[-1]
            else:
                raise AssertionError("the solve ended without an interrupt")
            assert waited < 10, waited
            assert solve(workers=workers) == expected
        """,
    )


def test_a_process_begins_and_ends_alone(tmp_path: Path) -> None:
    """No thread, no compilation, no warning: whoever forks right after the import is safe.

    And the interpreter ends, with an idle pool, while a daemon thread solves.
    """
    run_script(
        tmp_path,
        """
        assert threading.active_count() == 1, threading.enumerate()
        assert "numba" not in sys.modules
        solve(workers=1)
        assert threading.active_count() == 1, threading.enumerate()
        solve()
        def forever():
            while True:
                solve()
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.2)
        """,
        timeout=60,
    )


@pytest.mark.every
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    """Numba refuses to cache where neither the package nor the home folder can be written: then nothing is kept.

    Not even the superuser can make a folder where a file is in the way.
    """
    home = tmp_path / "home"
    home.write_text("no folder")
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "epsot", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [path for path in (site / "epsot").rglob("*") if path.is_dir()] + [site / "epsot"]:
        (folder / "__pycache__").write_text("no folder")
    env = {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home), "XDG_CACHE_HOME": str(home)}
    env |= {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": "", "NUMBA_OPT": "0", "EPSOT_SITE": str(site)}
    run_script(
        tmp_path,
        """
        assert epsot.__file__.startswith(os.environ["EPSOT_SITE"]), epsot.__file__
        # With a callback the steps are made one by one, by kernels that take less long to compile.
        cost = epsot.CostMatrix(abs(x[:20, :1] - y[:10, 0]))
        result = epsot.solve(cost, eps=0.1, tol=None, callback=lambda intermediate: None)
        assert result.status is epsot.Status.SCHEDULE_ENDED and np.isfinite(result.value)
        """,
        env,
        timeout=200,
    )


def test_without_compilation(tmp_path: Path) -> None:
    """NUMBA_DISABLE_JIT, as for a debugger: the portable path, with the same result."""
    body = """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(32, 3)) + 1
    result = epsot.sinkhorn_divergence(x, y, blur=0.3, tol=1e-9)
    found = [float(result.value), float(result.grad_x.sum()), float(result.plan.sum())]
    found.append(epsot.solve(epsot.CostMatrix(abs(x[:, :1] - y[:, 0])), eps=0.1).success)
    """
    on: dict[str, Any] = {"np": np, "epsot": epsot}
    exec(textwrap.dedent(body), on)
    off = run_script(tmp_path, body + "print(*found)", {"NUMBA_DISABLE_JIT": "1"}).split()
    np.testing.assert_allclose(np.asarray(off[:3], float), on["found"][:3], rtol=1e-7)
    assert on["found"][3] and off[3] == "True"


@pytest.mark.every
def test_damaged_files_of_the_cache_are_compiled_anew(tmp_path: Path) -> None:
    """A disk that was full, a process that was killed: truncated files end no solve, and are replaced."""
    body = """
    from epsot.kernels.cpu.compiled import compiled

    @compiled
    def index(x):
        return 2 * x

    @compiled
    def code(x):
        return 3 * x

    @compiled
    def both(x):
        return 4 * x

    @compiled
    def empty(x):
        return 5 * x

    for kernel in (index, code, both, empty):
        print(kernel(42), sum(kernel.stats.cache_hits.values()))
    """
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_OPT": "0"}

    def found() -> list[str]:
        results = [line.split() for line in run_script(tmp_path, body, env).splitlines()]
        assert [value for value, _ in results] == ["84", "126", "168", "210"]
        return [hits for _, hits in results]

    assert found() == ["0"] * 4
    for name, suffixes in (("index", [".nbi"]), ("code", [".nbc"]), ("both", [".nbi", ".nbc"]), ("empty", [".nb*"])):
        files = [path for suffix in suffixes for path in (tmp_path / "cache").rglob(f"script.{name}_*{suffix}")]
        assert files
        for path in files:
            path.write_bytes(path.read_bytes()[: 0 if name == "empty" else -20])
    assert found() == ["0"] * 4
    assert found() == ["1"] * 4


def test_what_two_processes_save_at_once_is_kept(tmp_path: Path) -> None:
    """Each for types of its own: the second saves between the moments when the first reads what is there and writes."""
    body = """
    from numba.core.caching import IndexDataCacheFile
    from epsot.kernels.cpu.compiled import compiled

    def kernel():
        def double(x):
            return 2 * x
        return compiled(double)

    double, other, save = kernel(), kernel(), IndexDataCacheFile._save_index  # as in two processes

    def save_meanwhile(self, index):
        IndexDataCacheFile._save_index = save
        assert other(0.75) == 1.5
        save(self, index)

    IndexDataCacheFile._save_index = save_meanwhile
    for found in (double(21), other(0.25)):
        print(found)
    print(*(sum(one.stats.cache_hits.values()) for one in (double, other)))
    """
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_OPT": "0"}
    assert run_script(tmp_path, body, env).split() == ["42", "0.5", "0", "0"]
    assert run_script(tmp_path, body, env).split() == ["42", "0.5", "1", "1"]


# Copies


def solved() -> list[Any]:
    rng = np.random.default_rng(6)
    x, y = rng.random((9, 2)), rng.random((7, 2))
    a = np.asarray([1, 0, 2, 3, 1, 1, 4, 2, 2]) / 16
    matrix = epsot.CostMatrix(rng.random((9, 7)))
    return [
        epsot.sinkhorn(x, y, a, blur=0.3),
        epsot.sinkhorn(x.astype(np.float32), y.astype(np.float32), blur=0.3, p=1, reach=(1.0, None)),
        epsot.sinkhorn_divergence(x, y, a, blur=0.3, reach=2.0),
        epsot.solve(epsot.PointCloud(x, y, cost="cosine"), eps=0.3),
        epsot.solve(matrix, a, eps=0.3),
        epsot.divergence(Multiscale(x, y, labels_x=np.arange(9) // 3, labels_y=np.arange(7) // 2), a, eps=0.1),
    ]


@pytest.mark.parametrize("again", [lambda z: pickle.loads(pickle.dumps(z)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("which", range(6))
def test_copies_of_results(which: int, used: bool, again: Any) -> None:
    """Results go to disk and to other processes, before and after something was derived from them."""
    result = solved()[which]
    if used:
        assert "Result" in repr(result)
        result.plan @ result.g, result.gap, result.f
    other = again(result)
    assert type(other) is type(result)
    assert (other.status, other.nit, other.eps, other.rho) == (result.status, result.nit, result.eps, result.rho)
    assert other.history == result.history
    assert other.success is result.success
    for name in ("value", "f", "g", "grad_a", "primal", "gap"):
        np.testing.assert_array_equal(getattr(other, name), getattr(result, name))
    np.testing.assert_array_equal(other.plan.to_dense(), result.plan.to_dense())
    if isinstance(result.instance.geometry, epsot.PointCloud):
        np.testing.assert_array_equal(other.displacement, result.displacement)
        np.testing.assert_array_equal(other.transport([[0.5, 0.5]]), result.transport([[0.5, 0.5]]))


@pytest.mark.parametrize("again", [lambda z: pickle.loads(pickle.dumps(z)), copy.deepcopy])
def test_copies_of_the_parts(again: Any) -> None:
    rng = np.random.default_rng(7)
    cloud = epsot.PointCloud(rng.random((4, 2)), rng.random((3, 2)), p=1)
    matrix = epsot.CostMatrix(rng.random((4, 3)))
    plan = epsot.solve(cloud, eps=0.1).plan
    assert repr(again(cloud)) == repr(cloud)
    assert epsot.solve(again(cloud), eps=0.1).value == epsot.solve(cloud, eps=0.1).value
    assert epsot.solve(again(matrix), eps=0.1).value == epsot.solve(matrix, eps=0.1).value
    np.testing.assert_array_equal(again(plan) @ np.ones(3), plan @ np.ones(3))
    np.testing.assert_array_equal(again(plan).T.sum(axis=1), plan.sum(axis=0))


def test_a_copied_result_is_a_warm_start() -> None:
    """A run that goes on tomorrow."""
    rng = np.random.default_rng(8)
    x, y = rng.random((60, 2)), rng.random((50, 2))
    cold = epsot.sinkhorn_divergence(x, y, blur=0.05, tol=1e-6)
    warm = epsot.sinkhorn_divergence(x, y, blur=0.05, tol=1e-6, init=pickle.loads(pickle.dumps(cold)))
    assert warm.nit < cold.nit
    np.testing.assert_allclose(warm.value, cold.value, rtol=1e-9)


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
def test_copies_of_other_libraries(library: str) -> None:
    xp = pytest.importorskip(library)
    rng = np.random.default_rng(9)
    result = epsot.sinkhorn(xp.asarray(rng.random((5, 2))), xp.asarray(rng.random((4, 2))), blur=0.3)
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert type(other.value) is type(result.value)
        assert float(other.value) == float(result.value)
        assert bool(xp.all(other.grad_x == result.grad_x))


def arrays_of(result: Any) -> int:
    """The bytes of what a result is made of: points, weights, their logarithms, potentials and what extends them."""
    parts = {id(part): part for part in getattr(result, "parts", (result,))}.values()
    found: dict[int, int] = {}
    for part in parts:
        pair, problem, geometry = part.dual_pair, part.instance.problem, part.instance.geometry
        sides = (problem.a, problem.b)
        arrays = [*geometry.points, *(z for side in sides for z in (side.weights, side.log_weights))]
        arrays += [pair.f, pair.g, *(pair.f_map or ()), *(pair.g_map or ())]
        found |= {id(array): array.nbytes for array in arrays}
    return sum(found.values())


@pytest.mark.parametrize("call", [epsot.sinkhorn, epsot.sinkhorn_divergence])
def test_pickles_drop_what_was_derived(call: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random((500, 2)), rng.random((450, 2))
    result = call(x, y, blur=0.1)
    fresh = pickle.dumps(result)
    assert len(fresh) < 1.2 * arrays_of(result)
    result.plan @ np.ones(450), result.gap, result.displacement, result.grad_y, result.value, result.instance.exact
    assert len(pickle.dumps(result)) < len(fresh) + 100
    assert "plan" not in vars(copy.copy(getattr(result, "xy", result)))
    assert len(pickle.dumps(result.plan)) < len(fresh)


@pytest.mark.parametrize("watched", [False, True])
def test_pickles_of_batches(watched: bool) -> None:
    """What a callback has followed, too; with the items that were solved alone, without those that were looked at."""
    rng = np.random.default_rng(4)
    x, y, a = rng.random((3, 20, 2)), rng.random((25, 2)), rng.random((3, 20))
    a[1] *= [*[1e-200] * 10, *[1.0] * 10]
    options: dict[str, Any] = {"blur": 0.1, "callback": (lambda record: None) if watched else None}
    for result in (epsot.sinkhorn(x, y, a, reach=1.0, **options), epsot.sinkhorn_divergence(x, y, blur=0.1)):
        fresh = len(pickle.dumps(result))
        desired = result.displacement, result.f, result[2].grad_x, result[1].gap
        assert len(pickle.dumps(result)) < fresh + 100
        for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            for z, expected in zip((other.displacement, other.f, other[2].grad_x, other[1].gap), desired, strict=True):
                np.testing.assert_array_equal(z, expected)


def test_references_are_given_back() -> None:
    """A result is not part of a cycle: its arrays go as soon as it goes, without waiting for the collector."""
    import gc
    import weakref

    gc.disable()
    try:
        result = epsot.sinkhorn_divergence(np.ones((3, 2)), np.zeros((2, 2)), blur=0.3)
        result.plan @ result.g, result.displacement, result.gap
        gone = weakref.ref(result.xy)
        del result
        assert gone() is None
    finally:
        gc.enable()
