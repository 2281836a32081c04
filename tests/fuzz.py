"""Random problems against an independent oracle: nothing that a result says of itself is false.

    python -m tests.fuzz --problems 100000 --seed 0 --processes 2
    python -m tests.fuzz --only 0:17

The first prints every failure with the number of its problem, and counts now and then and at the end; the second
examines one problem. Each is solved by itself, and once more as an item of a batch, beside others of its call; and so
is one between two grids (`tests/fuzz_grids.py`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import epsot
from epsot.status import Status
from tests.fuzz_batches import draw_company, examine_company
from tests.fuzz_checks import UNRESOLVED, check_result, documented, kind_of, unexpected
from tests.fuzz_grids import draw_on_grids
from tests.fuzz_problems import Problem, draw

STUCK = 120  # seconds after which a problem is given up
VARYING = r"(xy|xx|yy|whole) |(?<=not finite).*|-?\d[\d.]*(e[+-]?\d+)?|\b(inf|nan)\b"  # in what is said of a kind
CHUNK = 500  # problems that a process examines before the next takes over


def check_warnings(problem: Problem, status: Status, said: list[Any]) -> Iterator[str]:
    """One ConvergenceWarning where the tolerance was not reached, and no other kinds."""
    yield from unexpected(said, problem)
    announced = [str(warning.message) for warning in said if issubclass(warning.category, epsot.ConvergenceWarning)]
    if problem.call == "Objective":  # warns at each of its points
        return
    if Status.MAX_ITER <= status <= Status.DIVERGED:
        if len(announced) != 1 or not announced[0].startswith(status.name):
            yield f"{status.name}, warned of {announced}"
    elif announced:
        yield f"{status.name}, warned of {announced}"


def check_start(problem: Problem, result: Any) -> Iterator[str]:
    """No start spoils what would converge without it, and not by the luck of rounding."""
    if problem.warm is not None and result.status in UNRESOLVED and not problem.rounds:
        cold = problem.solve(None, None)
        if cold.success:
            yield f"{result.status.name} from an earlier result, without it CONVERGED"


def bits(result: Any) -> list[bytes]:
    parts = (result.xy, result.xx, result.yy) if hasattr(result, "xy") else (result,)
    numbers = ((part.source.potential, part.target.potential, part.value64, part.nit) for part in parts)
    return [np.asarray(number).tobytes() for part in numbers for number in part]


def check_bits(problem: Problem, init: Any, result: Any) -> Iterator[str]:
    """The same bits again, for any number of workers."""
    for workers in (1, 3) if result.f.size * result.g.size < 1e4 else (3,):
        if bits(problem.solve(init, workers)) != bits(result):
            yield f"others with workers={workers}"


def examine(problem: Problem) -> tuple[str, list[str]]:
    """The outcome of a problem in a word, and all complaints."""
    before = [z.tobytes() for z in problem.arrays]
    init = problem.start()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = problem.solve(init, None)
        except Exception as error:
            refused = documented(error) and problem.may_be_refused()
            return type(error).__name__, [] if refused else [f"solve: {kind_of(error)}"]
    complaints = [f"solve: {text}" for text in check_warnings(problem, result.status, said)]
    complaints += check_result(problem, result, said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        complaints += [f"bits: {text}" for text in check_bits(problem, init, result)]
        complaints += [f"start: {text}" for text in check_start(problem, result)]
    if before != [z.tobytes() for z in problem.arrays]:
        complaints.append("inputs: modified")
    return result.status.name, complaints


def examine_all(seed: int, index: int) -> tuple[str, list[str]]:
    """The outcome of a problem, and all complaints about it, by itself and as an item of a batch."""
    status, complaints = examine(draw(seed, index))
    complaints = complaints + [f"on grids: {text}" for text in examine(draw_on_grids(seed, index))[1]]
    return status, complaints + examine_company(draw_company(seed, index))


def serve(seed: int, indices: range, channel: Any) -> None:
    """Examine problems one by one, in a process of their own."""
    for index in indices:
        try:
            channel.send((index, *examine_all(seed, index)))
        except Exception as error:
            channel.send((index, "FUZZER", [f"fuzzer: {kind_of(error)}"]))


def watched(seed: int, indices: range) -> Iterator[tuple[int, str, list[str]]]:
    """The outcomes of problems, whatever becomes of the process that solves them."""
    context = multiprocessing.get_context("spawn")
    while indices:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=serve, args=(seed, indices, theirs), daemon=True)
        process.start()
        theirs.close()
        failed = ""
        while indices and not failed:
            try:
                failed = "" if ours.poll(STUCK) else f"stuck for {STUCK} seconds"
                outcome = (indices[0], "STUCK", [failed]) if failed else ours.recv()
            except EOFError:
                failed = "the process died"
                outcome = (indices[0], "DIED", [failed])
            yield outcome
            indices = indices[1:]
        process.terminate()
        process.join()


def counts(statuses: Counter[str]) -> str:
    return f"{sum(statuses.values())} problems: " + ", ".join(f"{n} {name}" for name, n in statuses.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", metavar="SEED:INDEX", help="one problem, in this process")
    options = parser.parse_args()
    if options.only:
        seed, index = (int(number) for number in options.only.split(":"))
        print(draw(seed, index))
        status, complaints = examine_all(seed, index)
        print(status, *complaints, sep="\n")
        return int(bool(complaints))
    indices = range(options.first, options.first + options.problems)
    statuses: Counter[str] = Counter()
    kinds: Counter[str] = Counter()

    def run(part: range) -> None:
        for index, status, complaints in watched(options.seed, part):
            statuses[status] += 1
            if sum(statuses.values()) % (10 * CHUNK) == 0:
                print(counts(statuses), flush=True)
            for text in complaints:
                print(f"{options.seed}:{index} {text}", flush=True)
                kinds[re.sub(VARYING, "#", text)] += 1

    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(run, chunks))
    print(counts(statuses))
    print(*(f"{n:7d} {kind}" for kind, n in kinds.most_common()), sep="\n")
    return int(bool(kinds))


if __name__ == "__main__":
    sys.exit(main())
