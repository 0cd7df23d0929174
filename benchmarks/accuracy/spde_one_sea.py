"""One sea, whose parameters vary in space and are the same at all times: learned, then used.

As in ``spde_joint.py``, on 24 x 24 places and 7 days, but all windows have the same parameters,
unknown to the methods. They are learned once, on training windows:

- as constants, the most likely of the training fields (the best stationary fit);
- as fields, the most likely of the same training fields and of their own law (a truth is there in
  a simulation);
- as fields, from gappy and noisy data of these windows alone: no truth is read.

Other windows, seen at a tenth of the nodes, are then conditioned exactly with each, and with the
true parameters: the oracle. Standard errors are those of the paired differences of windows, over
the mean of the oracle, in per cent.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish
from spde_joint import NOISE, Case, errors, gaps, most_likely, scores, the_prior

import matheron as mt

from matheron.priors.spde.augmented import AugmentedSPDE


def windows(
    prior: AugmentedSPDE, theta: torch.Tensor, size: int, noise: float, seed: int
) -> list[Case]:
    """Returns windows of one sea."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for x in prior.given(theta).sample(size, generator):
        seen = mt.GriddedObservation(prior.domain, gaps(generator), noise)
        found.append(Case(x, theta, seen, seen.sample(x, generator)))
    return found


def evidence(prior: AugmentedSPDE, every: list[Case]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns minus the log-likelihood of the data of some windows."""
    exact = mt.SparseCholesky()

    def cost(theta: torch.Tensor) -> torch.Tensor:
        law = prior.given(theta)
        return -sum(exact.likelihood(law, case.seen, case.y).value() for case in every)

    return cost


def learned(prior: AugmentedSPDE, train: list[Case], steps: int) -> dict[str, tuple]:
    """Returns parameters by method, and the processor seconds that each took."""
    fields, few = torch.stack([case.x for case in train]), train[: len(train) // 4]
    ways = {
        "constants, from truths": lambda: most_likely(
            lambda t: -prior.log_density(fields, t).mean(), prior, 15
        ),
        "fields, from truths": lambda: prior.likeliest(
            lambda t: -prior.log_density(fields, t).sum(), steps=5 * steps
        ),
        "constants, from data": lambda: most_likely(
            lambda t: evidence(prior, few)(t) / len(few), prior, 10
        ),
        "fields, from data": lambda: prior.likeliest(evidence(prior, few), steps=steps),
    }
    found = {}
    for name, way in ways.items():
        start = time.process_time()
        found[name] = (way(), time.process_time() - start)
        print(f"{name}: {found[name][1]:.0f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=64, help="windows; a fourth for data alone")
    parser.add_argument("--cases", type=int, default=24, help="test windows of each noise")
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument(
        "--steps", type=int, default=25, help="from data; five times as many from truths"
    )
    parser.add_argument("--seed", type=int, default=7)
    told = parser.parse_args()
    torch.set_num_threads(1)
    prior = the_prior()
    theta = prior.sample_jointly(1, torch.Generator().manual_seed(told.seed))[1][0]
    train = windows(prior, theta, told.train, NOISE[0], told.seed + 1)
    ways = {"true parameters (oracle)": (theta, 0.0), **learned(prior, train, told.steps)}
    for k, noise in enumerate(NOISE):
        test = windows(prior, theta, told.cases, noise, told.seed + 100 + k)
        rows, oracle = [], None
        for name, (found, seconds) in ways.items():
            each = []
            for number, case in enumerate(test):
                with torch.no_grad():
                    law = mt.SparseCholesky()(prior.given(found), case.seen)(case.y)
                members = law.sample(told.members, torch.Generator().manual_seed(number))
                each.append(scores(law.mean, members, case.x))
            table = {key: torch.tensor([one[key] for one in each]) for key in each[0]}
            oracle = oracle or table
            row = {"noise": noise, "parameters": name, "windows": len(test), "seconds": seconds}
            row["rmse"] = table["mse"].mean().sqrt().item()
            for key in ("mse", "crps"):
                level, rest = oracle[key].mean(), table[key] - oracle[key]
                row[f"{key} over oracle %"] = (100 * rest.mean() / level).item()
                row[f"its se, {key}"] = (100 * rest.std() / math.sqrt(len(rest)) / level).item()
            row["spread/skill"] = (table["variance"].mean() / table["mse"].mean()).sqrt().item()
            row["cover90"] = table["cover90"].mean().item()
            rows.append({**row, **errors(prior, found, test[0])})
        finish(f"One sea, noise {noise}", "spde_one_sea", rows)


if __name__ == "__main__":
    main()
