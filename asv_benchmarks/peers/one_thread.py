"""epsot and GeomLoss in CPU seconds, which other work on the machine hardly changes, and the error that each reached.

On busy cores the threads of KeOps wait for one another in a spin, so GeomLoss has one thread. In asv_benchmarks:
OMP_NUM_THREADS=1 python -m peers.one_thread FAMILY N BLUR epsot|"GeomLoss multiscale" SETTING ...
"""

import importlib
import sys
import time

from benchmarks.problems import Task, clouds

from peers.answers import marginal_error
from peers.solvers import SOLVERS


def main(family: str, n: str, blur: str, name: str, *settings: str) -> None:
    task, solver = Task(family, int(n), 3, float(blur), True), SOLVERS[name]
    library = importlib.import_module(f"peers.{solver.adapter}")
    if solver.adapter == "with_geomloss":
        library.torch.set_num_threads(1)
    for setting in map(float, settings):
        call = library.prepare(task, *clouds(task), setting, parameter=solver.parameter, **solver.options)
        start = time.process_time()
        raw = call()
        seconds = time.process_time() - start
        error = marginal_error(task, library.read(task, raw).potentials)
        print(f"{task} {name} {solver.parameter}={setting:g}: CPU {seconds:.2f} s, error {error:.1e}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
