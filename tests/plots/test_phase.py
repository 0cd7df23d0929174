"""Pictures of trajectories."""

import pytest
import torch

from matheron.plots.phase import phase_space, time_series


@pytest.fixture
def path(generator):
    return torch.randn(30, 3, dtype=torch.float64, generator=generator).cumsum(dim=0)


@pytest.fixture
def ensembles(path, generator):
    noise = torch.randn(5, 30, 3, dtype=torch.float64, generator=generator)
    return {name: path + scale * noise for name, scale in (("good", 0.1), ("poor", 2.0))}


def test_phase_space_draws_members_truth_and_seen_data(path, ensembles):
    seen = torch.zeros(30, 3, dtype=torch.bool)
    seen[::3] = True
    seen[3, 2] = False
    figure = phase_space(path, ensembles, path + 1, seen, components=(1, 2))
    for ax, name in zip(figure.axes, ensembles, strict=True):
        assert ax.get_title() == name
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("y", "z")
        lines = ax.get_lines()
        assert list(lines[0].get_xdata()) == ensembles[name][0, :, 1].tolist()
        assert list(lines[5].get_ydata()) == path[:, 2].tolist()
        assert len(lines[6].get_xdata()) == 9  # of 10, one is not seen in z
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["members", "truth", "data"]


def test_time_series_draws_bands_of_two_deviations(path, ensembles):
    times = torch.arange(30, dtype=torch.float64)
    figure = time_series(times, path, ensembles, path)
    assert len(figure.axes) == 6
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    E = ensembles["good"][..., 0]
    high = (E.mean(0) + 2 * E.std(0)).max().item()
    assert band[:, 1].max() == pytest.approx(high)


@pytest.mark.parametrize("draw", [
    lambda x, E: phase_space(x, E),
    lambda x, E: time_series(torch.arange(30, dtype=torch.float64), x, E),
])  # fmt: skip
def test_bad_shapes_are_told(draw, path):
    with pytest.raises(ValueError, match=r"expected members with shape \(size, 30, 3\)"):
        draw(path, {"short": path[None, :20]})
    with pytest.raises(ValueError, match="got none"):
        draw(path, {})
