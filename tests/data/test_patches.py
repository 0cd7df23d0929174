"""Windows: nothing leaks, the same seeds give the same windows, and parts lie apart."""

import numpy as np
import pytest
import torch

from torch.testing import assert_close

from matheron.data.patches import Augmentation, Windows
from matheron.data.purposes import Purpose, Withhold, split_times
from matheron.domain import Grid

SIZE = (5, 4, 6)


def _grid(land: bool = False) -> Grid:
    mask = None
    if land:
        mask = torch.ones(8, 10, dtype=torch.bool)
        mask[:2, :3] = False
    return Grid(time=range(20), lat=torch.arange(8.0), lon=torch.arange(10.0) * 2, mask=mask)


def _fields(grid: Grid, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    truth = torch.randn(len(grid), dtype=torch.float64, generator=g)
    mask = torch.rand(len(grid), generator=g) < 0.4
    noise = torch.randn(len(grid), dtype=torch.float64, generator=g)
    return truth, mask, truth + 0.1 * noise


def _windows(grid: Grid, **settings) -> Windows:
    truth, mask, values = _fields(grid)
    arguments = {"values": values, "mask": mask, "noise_std": 0.1, "truth": truth} | settings
    return Windows(grid, SIZE, **arguments)


def _all(windows: Windows, seeds: int = 0):
    index = torch.arange(len(windows))
    return windows.batch(index, index + seeds)


def test_windows_are_the_boxes_of_the_fields() -> None:
    grid = _grid()
    truth, mask, values = (grid.unflatten(x.double()) for x in _fields(grid))
    windows = _windows(grid)
    batch = _all(windows)
    assert len(windows) == 16 * 3 * 3
    for i, (t, y, x) in enumerate(windows.starts):
        box = (slice(t, t + 5), slice(y, y + 4), slice(x, x + 6))
        seen = mask[box].flatten() > 0
        assert torch.equal(batch.truth[i], truth[box].flatten())
        assert torch.equal(batch.mask[i], seen)
        assert torch.equal(batch.values[i], values[box].flatten() * seen)
        assert torch.equal(batch.axes["lon"][i], grid.axes["lon"][x : x + 6])


@pytest.mark.parametrize("exchange", [0.0, 1.0])
def test_nothing_leaks_from_where_nothing_is_seen(exchange: float) -> None:
    grid = _grid()
    truth, mask, values = _fields(grid)
    settings = {"augmentation": Augmentation(exchange), "withhold": Withhold(0.3)}
    own = _all(_windows(grid, **settings))
    assert (own.values[~own.mask] == 0).all()
    assert (own.hidden[~own.hidden_mask] == 0).all()
    assert not (own.mask & own.hidden_mask).any()
    # another truth where the window is not seen: the same data
    other = truth.clone()
    other[:] = torch.where(_seen_anywhere(grid, mask) if exchange else mask, truth, 99.0)
    gaps = torch.where(mask, values, torch.nan)
    again = _all(_windows(grid, truth=other, values=gaps, **settings))
    assert torch.equal(own.values, again.values)
    assert torch.equal(own.hidden, again.hidden)


def _seen_anywhere(grid: Grid, mask: torch.Tensor) -> torch.Tensor:
    return grid.unflatten(mask.double()).amax(dim=0).expand(grid.shape).flatten() > 0


def test_exchanged_gaps_are_those_of_another_time_and_data_are_observed_anew() -> None:
    grid = _grid()
    _, mask, _ = _fields(grid)
    windows = _windows(grid, augmentation=Augmentation(exchange=1.0), noise_std=0.5)
    batch = _all(windows)
    times = grid.unflatten(mask.double()) > 0
    for i, (_, y, x) in enumerate(windows.starts[:20]):
        found = [
            torch.equal(batch.mask[i], times[t : t + 5, y : y + 4, x : x + 6].flatten())
            for t in range(16)
        ]
        assert any(found)
    # the moments of the noise: 0.5 within five standard errors, sigma / sqrt(2 m)
    e = (batch.values - batch.truth)[batch.mask]
    assert abs(e.std().item() - 0.5) < 5 * 0.5 / (2 * len(e)) ** 0.5
    assert abs(e.mean().item()) < 5 * 0.5 / len(e) ** 0.5
    assert not torch.equal(batch.values, _all(windows, seeds=1000).values)


def test_a_window_knows_its_seed_and_nothing_of_its_company() -> None:
    augmentation = Augmentation(exchange=0.5, shift=True, flips=("lon", "lat"))
    windows = _windows(_grid(), augmentation=augmentation, withhold=Withhold(0.2))
    index, seeds = torch.tensor([3, 40, 7]), torch.tensor([5, 6, 7])
    together = windows.batch(index, seeds)
    for k in range(3):
        alone = windows.batch(index[k : k + 1], seeds[k : k + 1])
        for name in ("values", "mask", "truth", "weights", "hidden"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[k])


def test_flips_turn_everything_alike() -> None:
    windows = _windows(_grid(), augmentation=Augmentation(flips=("lon",)))
    plain = _all(_windows(_grid()))
    flipped = _all(windows)
    turned = flipped.axes["lon"][:, 0] > flipped.axes["lon"][:, 1]
    assert 0.3 < turned.double().mean() < 0.7
    for name in ("values", "truth", "mask", "weights"):
        own, other = flipped.space(getattr(flipped, name)), plain.space(getattr(plain, name))
        assert torch.equal(own[turned], other.flip(-1)[turned])
        assert torch.equal(own[~turned], other[~turned])


def test_a_forecast_sees_no_data_beyond_now() -> None:
    grid = _grid()
    batch = _all(_windows(grid, purpose=Purpose("forecast", lead=2)))
    seen, hidden = batch.space(batch.mask), batch.space(batch.hidden_mask)
    assert not seen[:, 3:].any()
    assert hidden[:, 3:].any()
    assert not hidden[:, :3].any()
    assert (batch.space(batch.weights)[:, :4] == 0).all()
    assert (batch.space(batch.weights)[:, 4] == 1).all()
    again = _windows(grid, purpose=Purpose("forecast", lead=2), augmentation=Augmentation(1.0))
    assert not _all(again).space(_all(again).mask)[:, 3:].any()


def test_purposes_weigh_the_time_that_is_wanted() -> None:
    assert Purpose().weights(5).tolist() == [0, 0, 1, 0, 0]
    assert Purpose().weights(4).tolist() == [0, 0.5, 0.5, 0]
    assert Purpose("near-real-time").weights(3).tolist() == [0, 0, 1]
    assert Purpose("near-real-time").visible(3).all()
    for wrong in ({"name": "past"}, {"lead": 2}, {"name": "forecast"}, {"width": 0.5}):
        with pytest.raises(ValueError, match=r"Purpose\(name=...\): expected one of"):
            Purpose(**wrong)
    with pytest.raises(ValueError, match="expected fewer times than the 3"):
        Purpose("forecast", lead=3).visible(3)


def test_land_is_not_seen_and_weighs_nothing() -> None:
    grid = _grid(land=True)
    noise = torch.full((len(grid),), 0.1, dtype=torch.float64)
    batch = _all(_windows(grid, noise_std=noise, withhold=Withhold(0.3, "box", 2), rim=1))
    land = grid.unflatten(torch.ones(len(grid), dtype=torch.float64)).isnan()
    for i, (t, y, x) in enumerate(_windows(grid).starts):
        box = land[t : t + 5, y : y + 4, x : x + 6].flatten()
        assert not (batch.mask[i] & box).any()
        assert (batch.weights[i][box] == 0).all()
    for name in ("values", "truth", "hidden", "noise_std"):
        assert getattr(batch, name).isfinite().all()
    assert (batch.noise_std > 0).all()
    inner = batch.space(batch.weights)
    assert (inner[..., 0] == 0).all()
    assert (inner[..., 0, :] == 0).all()


def test_windows_without_data_are_left_out() -> None:
    grid = _grid()
    _, mask, _ = _fields(grid)
    days = grid.unflatten(mask.double()) > 0
    days[10:] = False
    windows = _windows(grid, mask=days.flatten())
    assert max(s[0] for s in windows.starts) == 9
    assert _all(windows).mask.any(dim=-1).all()
    with pytest.raises(ValueError, match="expected windows with data"):
        _windows(grid, mask=days.flatten(), span=(12, 20))


@pytest.mark.parametrize("by", ["node", "time", "label", "box", "exchange"])
def test_what_is_withheld_is_some_of_the_data(by: str) -> None:
    grid = _grid()
    labels = torch.randint(6, (len(grid),), generator=torch.Generator().manual_seed(3))
    windows = _windows(grid, withhold=Withhold(0.3, by, size=2), labels=labels)
    plain = _all(_windows(grid))
    batch = _all(windows)
    assert torch.equal(batch.mask | batch.hidden_mask, plain.mask)
    assert batch.mask.any(dim=-1).all()
    share = (batch.hidden_mask.sum() / plain.mask.sum()).item()
    assert 0.1 < share < 0.75 if by == "exchange" else 0.2 < share < 0.45
    whole = {"time": grid.points.axis("time"), "label": labels.double()}.get(by)
    if whole is not None:  # a time or a label is hidden whole, or not at all
        own = Windows(grid, SIZE, whole, torch.ones_like(labels, dtype=torch.bool), 0.1)
        keys = _all(own).values
        for i in range(len(batch)):
            hidden = keys[i][batch.hidden_mask[i]].unique()
            assert not torch.isin(keys[i][batch.mask[i]], hidden).any()


def test_withhold_says_what_it_needs() -> None:
    seen = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="expected the labels"):
        Withhold(0.5, "label").draw(seen)
    with pytest.raises(ValueError, match="a fraction between 0 and 1"):
        Withhold(1.0)
    one = torch.tensor([[True, False]])
    assert not Withhold(0.9).draw(one, generator=torch.Generator().manual_seed(1)).any()


def test_parts_lie_a_window_apart() -> None:
    grid = Grid(time=range(100), x=[0.0, 1.0])
    assert split_times(grid, 5, b=(50, 99), a=(0, 44)) == {"b": (50, 100), "a": (0, 45)}
    with pytest.raises(ValueError, match=r"expected a gap of one window, 5 times, got 4"):
        split_times(grid, 5, b=(50, 99), a=(0, 45))
    with pytest.raises(ValueError, match=r"got a and b that overlap. Start b 25 times later"):
        split_times(grid, 5, b=(50, 99), a=(0, 69))
    with pytest.raises(ValueError, match=r"at least one window of 20 times, got 10"):
        split_times(grid, 20, a=(0, 9))


def test_parts_are_told_by_dates() -> None:
    days = np.datetime64("2012-10-01") + np.arange(100)
    grid = Grid(time=days, x=[0.0, 1.0])
    parts = split_times(grid, 10, a=("2012-10-01", "2012-10-20"), b=("2012-11-01", "2012-12-31"))
    assert parts == {"a": (0, 20), "b": (31, 92)}
    with pytest.raises(ValueError, match="the grid has no dates"):
        split_times(Grid(time=range(100)), 10, a=("2012-10-01", "2012-10-20"))


def test_effective_number_of_windows() -> None:
    windows = _windows(_grid(), span=(0, 15))
    assert windows.independent == pytest.approx(15 / 5 * 8 / 4 * 10 / 6)
    alone = Windows(
        _grid(),
        (20, 8, 10),
        None,
        torch.ones(1600, dtype=torch.bool),
        0.1,
        truth=torch.zeros(1600),
    )
    assert (len(alone), alone.independent) == (1, 1.0)


def test_fingerprints_tell_data_and_settings_apart() -> None:
    grid = _grid()
    truth, mask, values = _fields(grid)
    own = _windows(grid).fingerprint()
    assert own == _windows(grid).fingerprint()
    moved = values.clone()
    moved[mask.nonzero()[0]] += 1e-12
    others = [{"values": moved}, {"rim": 1}, {"withhold": Withhold(0.1)}, {"noise_std": 0.2}]
    assert len({own, *(_windows(grid, **o).fingerprint() for o in others)}) == 5
    covariates = {"sst": (truth, mask)}
    assert _windows(grid, covariates=covariates).fingerprint() != own


def test_covariates_and_statistics_follow() -> None:
    grid = _grid()
    truth, mask, values = _fields(grid)
    windows = _windows(grid, covariates={"sst": (truth + 1, mask)})
    batch = _all(windows)
    x, known = batch.covariates["sst"]
    assert_close(x[known], (batch.truth + 1)[known])
    assert (x[~known] == 0).all()
    mean, std = windows.statistics()
    assert_close(torch.tensor([mean, std]).double(), torch.stack([truth.mean(), truth.std()]))
    moved = batch.to("cpu")
    assert torch.equal(moved.covariates["sst"][0], x)
    mean, _ = _windows(grid, truth=None).statistics()
    assert mean == pytest.approx(values[mask].mean().item())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"truth": None, "values": None}, "expected a truth to observe anew"),
        ({"truth": None, "augmentation": Augmentation(0.5)}, "expected a truth to observe anew"),
        ({"noise_std": 0.0}, "expected one positive number"),
        ({"truth": torch.full((1600,), torch.nan)}, "expected finite values, got 1600"),
        ({"stride": (1, 1)}, "expected a size and a stride for each axis"),
        ({"span": (0, 3)}, "expected a size and a stride for each axis"),
    ],
)
def test_windows_refuse(settings, said) -> None:
    with pytest.raises(ValueError, match=said):
        _windows(_grid(), **settings)
    with pytest.raises(ValueError, match="expected a probability"):
        Augmentation(exchange=2.0)
