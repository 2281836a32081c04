"""What `epsot.torch` and `epsot.jax` add to a divergence and its gradient of NumPy arrays, and what a product takes.

PyTorch and JAX are optional. Run as a script it prints CPU and wall milliseconds, the least of some calls in turns, and
what a bridge adds, for 64 points beside what PyTorch takes for a function of as many arguments that does nothing:
python asv_benchmarks/benchmarks/bridges.py [POINTS ...]
"""

import sys
import time

import numpy as np

import epsot

SIZES = [64, 1000, 10_000]
BLUR = 0.1


def clouds(n):
    """Two samples of cubes in 3-D, float32."""
    rng = np.random.default_rng(0)
    x, y = (rng.random((n, 3), dtype=np.float32) for _ in range(2))
    return x, y + np.float32(0.3)


def of_numpy(x, y):
    def call():
        result = epsot.sinkhorn_divergence(x, y, blur=BLUR)
        return result.value, result.grad_x

    return call


def of_torch(x, y):
    import torch

    from epsot.torch import sinkhorn_divergence

    x, y = torch.asarray(x).clone().requires_grad_(), torch.asarray(y)
    return lambda: torch.autograd.grad(sinkhorn_divergence(x, y, blur=BLUR), x)


def of_samples_loss(x, y):
    import torch

    from epsot.torch import SamplesLoss

    x, y, loss = torch.asarray(x).clone().requires_grad_(), torch.asarray(y), SamplesLoss(blur=BLUR)

    def call():
        x.grad = None
        loss(x, y).backward()

    return call


def of_nothing(x, y):
    """A function of PyTorch that is given its gradient: forward and backward, which no bridge can go without."""
    import torch

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(given, *measures):
            return given[0].clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.given = inputs[0]
            ctx.save_for_backward(*inputs[1:])

        @staticmethod
        def backward(ctx, upstream):
            ctx.saved_tensors  # noqa: B018 - as every backward does
            return None, upstream * ctx.given[1], None, None, None

    x, y = torch.asarray(x).clone().requires_grad_(), torch.asarray(y)
    given = torch.zeros(()), torch.zeros_like(x)
    return lambda: torch.autograd.grad(Nothing.apply(given, x, y, None, None), x)


def of_jax(x, y):
    import jax

    from epsot.jax import sinkhorn_divergence

    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)
    compiled = jax.jit(jax.value_and_grad(lambda x: sinkhorn_divergence(x, y, blur=BLUR)))
    return lambda: jax.block_until_ready(compiled(x))


FLOOR = "nothing"
WAYS = {"numpy": of_numpy, "torch": of_torch, "SamplesLoss": of_samples_loss, "jax": of_jax}


class Bridges:
    """Seconds; what a bridge takes more than NumPy is its price."""

    params = (list(WAYS), SIZES)
    param_names = ("bridge", "n")

    def setup(self, bridge, n):
        try:
            self.call = WAYS[bridge](*clouds(n))
        except ImportError:
            raise NotImplementedError(f"{bridge} is not installed") from None
        self.call()

    def time_value_and_gradient(self, bridge, n):
        self.call()


class Penalty:
    """A gradient penalty in PyTorch: a solve, its gradient, and a product with its Hessian."""

    params = SIZES[:-1]
    param_names = ("n",)

    def setup(self, n):
        try:
            import torch

            from epsot.torch import sinkhorn_divergence
        except ImportError:
            raise NotImplementedError("PyTorch is not installed") from None
        x, y = clouds(n)
        x, y = torch.asarray(x).clone().requires_grad_(), torch.asarray(y)

        def call():
            value = sinkhorn_divergence(x, y, blur=BLUR)
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            return torch.autograd.grad(slope.square().sum(), x)

        self.call = call
        call()

    def time_gradient_penalty(self, n):
        self.call()


def main(sizes):
    for n in sizes:
        calls, least = {}, {}
        for name, way in {**WAYS, FLOOR: of_nothing}.items():
            try:
                calls[name] = way(*clouds(n))
            except ImportError:
                continue
            calls[name]()
        for _ in range(5 + 100_000 // n):  # in turns, so that a busy machine slows all of them
            for name, call in calls.items():
                start = time.process_time(), time.perf_counter()
                call()
                spent = time.process_time() - start[0], time.perf_counter() - start[1]
                least[name] = [min(pair) for pair in zip(least.get(name, (9e9, 9e9)), spent, strict=True)]
        cpu, wall = least["numpy"]
        print(f"{n} points: numpy {1e3 * cpu:.2f} ms of CPU, {1e3 * wall:.2f} ms")
        for name in WAYS:
            if name == "numpy" or name not in least:
                continue
            more = [1e3 * (z - base) for z, base in zip(least[name], (cpu, wall), strict=True)]
            print(f"  {name}: {more[0]:+.2f} ms of CPU ({more[0] / cpu / 10:+.1f} %), {more[1]:+.2f} ms", flush=True)
        if FLOOR in least:
            print("  a function of PyTorch that does nothing: {:.2f} ms of CPU, {:.2f} ms".format(
                *(1e3 * z for z in least[FLOOR])
            ))  # fmt: skip


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or SIZES)
