"""Fixtures of the whole suite: seeded generators, one thread, the folder of real data.

The package is never imported here: jaxtyping must see its modules first, so that the shapes
written in the signatures are checked while the tests run.
"""

import jaxtyping
import matplotlib
import os
import pytest
import torch

from pathlib import Path

from tests.shape_checks import jaxtyped

matplotlib.use("Agg")
jaxtyping.jaxtyped = jaxtyped


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """Lets each test worker use the threads it was given, and no more (see the Makefile)."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True)
def _dice() -> None:
    """Draws that no generator was given for are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator, so that a test draws the same numbers alone or among others."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none.

    It is named by the environment variable ``MATHERON_DATA``, else sought beside the project.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MATHERON_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the real data sets are absent: name their folder by MATHERON_DATA")
    return folder
