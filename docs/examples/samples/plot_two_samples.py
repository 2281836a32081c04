r"""
Are two samples from one distribution?
======================================

The divergence of two samples is never zero, even if they come from one distribution. :func:`epsot.permutation_test`
asks whether it is larger than chance makes it: it compares it with the divergences after random permutations of the
labels. It needs no model, sees any kind of difference, and its p-value is valid for samples of any size.
"""

# %%
# Two samples
# -----------
#
# A round cloud, and one of the same mean and the same variances whose two coordinates are correlated. No coordinate
# by itself shows any difference.

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import epsot

rng = np.random.default_rng(0)


def samples(n, correlation):
    """Two samples, (n, 2) each, the second with such a correlation."""
    x, y = rng.normal(size=(2, n, 2))
    y[:, 1] = correlation * y[:, 0] + np.sqrt(1 - correlation**2) * y[:, 1]
    return x, y


x, y = samples(100, 0.8)
for k in range(2):
    print(f"coordinate {k}: Kolmogorov-Smirnov p = {stats.ks_2samp(x[:, k], y[:, k]).pvalue:.2f}")

# %%
# The test
# --------
#
# One choice is ours: the blur, below which differences do not count. Each permutation is a pair of weight vectors over
# the same 200 points, and all of them are solved in one batch.

blur = 0.5
test = epsot.permutation_test(x, y, blur=blur, n_resamples=999, rng=rng)
print(f"S = {test.statistic:.4f}, p = {test.pvalue:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axes[0].scatter(*x.T, s=12, color=epsot.plot.SOURCE)
axes[0].scatter(*y.T, s=12, color=epsot.plot.TARGET)
axes[0].set(aspect="equal", title="the two samples")
axes[1].hist(test.null_distribution, bins=40, color="0.7", label="labels permuted")
axes[1].axvline(test.statistic, color=epsot.plot.SOURCE, label=f"observed, p = {test.pvalue:.3f}")
axes[1].set(xlabel="divergence", ylabel="permutations", title="the null distribution")
axes[1].legend()
plt.show()

# %%
# How often is a difference found?
# --------------------------------
#
# The power of the test at the level of 5 % is the part of pairs of samples with ``pvalue <= 0.05``. Without a
# difference it is the level, whatever the blur; that is what the permutations are for. Beyond, the blur counts: a very
# large one leaves the difference of the means only, and of that there is none. These are 600 tests, and 60 000
# divergences.

correlations, trials = (0.0, 0.5, 0.7, 0.9), 50
blurs = (0.5, 1.0, 5.0)
power = np.zeros((len(blurs), len(correlations)))
for j, correlation in enumerate(correlations):
    for _ in range(trials):
        x, y = samples(40, correlation)
        for i, blur in enumerate(blurs):
            power[i, j] += epsot.permutation_test(x, y, blur=blur, n_resamples=99, rng=rng).pvalue <= 0.05
power /= trials

# %%
# The bars are two standard errors of so few trials.

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for row, blur, color in zip(power, blurs, plt.cm.viridis(np.linspace(0.1, 0.85, len(blurs))), strict=True):
    error = 2 * np.sqrt(row * (1 - row) / trials)
    ax.errorbar(correlations, row, error, color=color, marker="o", ms=4, capsize=2, label=f"blur {blur}")
ax.axhline(0.05, color="0.5", lw=0.8, ls="--")
ax.set(xlabel="correlation of the second sample", ylabel="power", ylim=(0, 1.02), title="40 points each, level 5 %")
ax.legend()
plt.show()
