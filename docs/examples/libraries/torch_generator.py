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
# the whole to that of the details, so that the layout is learnt before them. The gradient of a minibatch is noise to a
# good part, so that a rough ``tol`` is enough.

WIDTH, STEPS, BATCH = 128, 700, 512
generator = torch.nn.Sequential(
    torch.nn.Linear(2, WIDTH), torch.nn.ReLU(),
    torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(),
    torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(),
    torch.nn.Linear(WIDTH, 2),
)  # fmt: skip
optimiser = torch.optim.Adam(generator.parameters())
rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=STEPS)
loss = SamplesLoss("sinkhorn", p=2, blur=0.5, tol=1e-2)

history, pictures = [], {}
for step in range(STEPS):
    loss.blur = max(0.03, 0.5 * 0.985**step)
    optimiser.zero_grad()
    made = generator(torch.randn(BATCH, 2))
    value = loss(made, samples(BATCH))
    value.backward()
    optimiser.step()
    rate.step()
    history.append(value.item())
    if step in (29, 99, STEPS - 1):
        pictures[step + 1] = made.detach()

# %%
# What it has learnt
# ------------------
#
# The divergence at a fixed blur from samples that it has not seen, beside that between two sets of samples: means over
# ten draws, because either is as uncertain as samples are.

judge = SamplesLoss(blur=0.03, tol=1e-2)
with torch.no_grad():
    draws = [(generator(torch.randn(500, 2)), samples(500), samples(500)) for _ in range(10)]
    ours = sum(judge(made, held_out).item() for made, held_out, _ in draws) / 10
    floor = sum(judge(others, held_out).item() for _, held_out, others in draws) / 10
print(f"generated to samples {ours:.4f}, samples to samples {floor:.4f}")

held_out = draws[0][1]
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
axes[0].semilogy(history, lw=0.7, color="0.4")
axes[0].set(xlabel="step", title="divergence")
for ax, (step, points) in zip(axes[1:], pictures.items(), strict=True):
    ax.scatter(*held_out.T, s=2, color="#0072B2", linewidths=0, label="samples")
    ax.scatter(*points.T, s=4, color="#D55E00", linewidths=0, label="generated")
    ax.set(title=f"after {step} steps", aspect="equal", xticks=[], yticks=[], xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
axes[1].legend(loc="upper left", fontsize=8, markerscale=3, framealpha=1)
plt.show()

# %%
# A network is continuous, and so what it makes hangs together: there is always a thread from arm to arm.
