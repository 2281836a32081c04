r"""
A generator trained in PyTorch
==============================

A small network learns to draw from a distribution of which there are samples only: minibatches of what it makes and of
the samples are compared by :class:`epsot.torch.SamplesLoss`, whose gradient moves each point it makes along the
debiased transport to the samples.
"""

# sphinx_gallery_thumbnail_path = 'images/generator.png'

# %%
# The samples
# -----------
#
# Three arms of a spiral, with noise.

import matplotlib.pyplot as plt
import torch

from epsot.torch import SamplesLoss

torch.manual_seed(0)
torch.set_num_threads(1)  # the network is small, and epsot has threads of its own


def samples(n):
    """(n, 2)"""
    arm, along = torch.randint(3, (n,)), torch.rand(n).sqrt()
    angle = 2 * torch.pi * (arm / 3 + along / 2)
    return along[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1) + 0.02 * torch.randn(n, 2)


# %%
# The network
# -----------
#
# It makes a point of two normal numbers. The loss is a module like any other. Its ``blur`` falls from about the size of
# the whole to that of the details, so that the layout is learnt before them.

generator = torch.nn.Sequential(
    torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)
)
optimiser = torch.optim.Adam(generator.parameters(), lr=3e-3)
loss = SamplesLoss("sinkhorn", p=2, blur=0.5)
STEPS, BATCH = 600, 256

history = []
for step in range(STEPS):
    loss.blur = max(0.03, 0.5 * 0.99**step)
    optimiser.zero_grad()
    value = loss(generator(torch.randn(BATCH, 2)), samples(BATCH))
    value.backward()
    optimiser.step()
    history.append(value.item())

# %%
# What it has learnt
# ------------------
#
# On samples that it has not seen, the divergence at a fixed blur, beside that between two sets of samples, which no
# generator can be expected to go below.

judge = SamplesLoss(blur=0.03)
with torch.no_grad():
    made, held_out, others = generator(torch.randn(1000, 2)), samples(1000), samples(1000)
    ours, floor = judge(made, held_out).item(), judge(others, held_out).item()
print(f"generated to samples {ours:.5f}, samples to samples {floor:.5f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.semilogy(history, lw=0.8)
left.set(xlabel="step", ylabel="divergence of a minibatch")
right.scatter(*held_out.T, s=3, label="samples")
right.scatter(*made.T, s=3, label="generated")
right.set_aspect("equal")
right.legend(loc="upper right")
plt.show()
