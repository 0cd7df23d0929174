"""Laws of the pictures: what is drawn is what was given, where it is, on a scale that is said."""

import io
import itertools
import math
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from matheron import plots
from matheron.domain import EARTH_RADIUS, Grid, Points
from matheron.plots import frame

F64 = torch.float64
LAT, LON = np.arange(33.0, 43.0, 0.5), np.arange(295.0, 305.0, 0.5)


@pytest.fixture
def grid():
    return Grid(lat=LAT, lon=LON)


@pytest.fixture
def sea():
    mask = np.ones((20, 20), dtype=bool)
    mask[:5, :7] = False
    return Grid(lat=LAT, lon=LON, mask=mask)


@pytest.fixture
def dated():
    days = np.datetime64("2012-10-22") + np.arange(9).astype("timedelta64[D]")
    return Grid(time=days, lat=LAT, lon=LON)


def states(grid, generator, size=None):
    return torch.randn(*(size or ()), len(grid), generator=generator, dtype=F64)


def maps(figure: Figure):
    """The axes with a map, without the colour bars."""
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>" and ax.get_visible()]


def image(ax):
    return ax.collections[0].get_array()


def render(figure: Figure):
    figure.savefig(io.BytesIO(), format="png")
    return figure


def overlaps(figure: Figure):
    """Pairs of texts of a rendered figure whose boxes overlap."""
    renderer = FigureCanvasAgg(render(figure)).get_renderer()
    axes = [ax for ax in figure.axes if ax.get_visible()]
    texts = [text for ax in axes for text in labels(ax) if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    pairs = itertools.combinations(boxes, 2)
    return [(a, b) for (a, p), (b, q) in pairs if p.overlaps(q)]


def labels(ax):
    """The title, the names of the axes, and the tick labels that are within the limits."""
    yield ax.title
    for axis in (ax.xaxis, ax.yaxis):
        yield axis.label
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if low <= tick.get_loc() <= high:
                yield from (t for t in (tick.label1, tick.label2) if t.get_visible())


def test_a_map_draws_the_field_and_leaves_land_out(sea, generator):
    x = states(sea, generator)
    (ax,) = maps(plots.field(sea, x))
    drawn = image(ax).reshape(sea.shape)
    assert np.array_equal(drawn.mask.ravel(), ~sea.mask.numpy())
    assert np.array_equal(drawn.compressed(), x.numpy())


def test_a_state_and_a_field_are_drawn_alike(sea, generator):
    x = states(sea, generator)
    (a,), (b,) = maps(plots.field(sea, x)), maps(plots.field(sea, sea.unflatten(x)))
    assert np.array_equal(image(a).filled(9.0), image(b).filled(9.0))


def test_a_large_grid_is_thinned_but_keeps_its_values(generator):
    grid = Grid(y=np.arange(2.0), x=np.arange(4000.0))
    x = states(grid, generator)
    (ax,) = maps(plots.field(grid, x))
    assert image(ax).size <= 2 * frame.LARGEST
    assert np.isin(image(ax).compressed(), x.numpy()).all()


def test_a_degree_of_longitude_is_as_short_as_on_the_sphere(grid, generator):
    (ax,) = maps(plots.field(grid, states(grid, generator)))
    middle = math.radians((LAT[0] + LAT[-1]) / 2)
    assert ax.get_aspect() == pytest.approx(1 / math.cos(middle), rel=1e-12)


def test_the_plane_has_one_scale_on_both_axes(generator):
    grid = Grid(x=np.arange(5.0), y=np.arange(8.0))
    (ax,) = maps(plots.field(grid, states(grid, generator)))
    assert ax.get_aspect() == 1.0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


@pytest.mark.parametrize(
    ("longitude", "text"),
    [
        (295.0, "65°W"),
        (-65.0, "65°W"),
        (180.0, "180°"),
        (-180.0, "180°"),
        (0.0, "0°"),
        (361.5, "1.5°E"),
    ],
)
def test_longitudes_are_named_alike_on_either_branch(grid, generator, longitude, text):
    (ax,) = maps(plots.field(grid, states(grid, generator)))
    assert ax.xaxis.get_major_formatter()(longitude, 0) == text


def test_sites_are_drawn_on_the_branch_of_the_grid(grid, generator):
    either = Points(lat=[35.0, 35.0], lon=[-60.0, 300.0])
    (ax,) = maps(plots.observations(grid, either, torch.tensor([1.0, 2.0])))
    assert np.allclose(ax.collections[0].get_offsets()[:, 0], 300.0, rtol=0, atol=1e-9)


def test_colours_are_symmetric_only_where_both_signs_matter():
    both, one = np.linspace(-1.0, 2.0, 400), np.linspace(-0.1, 2.0, 400)
    assert frame.limits_of(both)[0] == -frame.limits_of(both)[1]
    assert frame.limits_of(one)[0] > -0.2
    low, high = frame.limits_of(np.full(9, 3.0))
    assert low < 3.0 < high
    assert frame.limits_of(np.full(9, np.nan)) == (0.0, 1.0)


def test_one_value_in_a_hundred_lies_beyond_each_limit():
    values = np.arange(10_001.0)
    low, high = frame.limits_of(values)
    assert (values < low).mean() == pytest.approx(0.01, abs=1e-3)
    assert (values > high).mean() == pytest.approx(0.01, abs=1e-3)


def test_fields_share_one_scale(grid, generator):
    x = states(grid, generator)
    figure = plots.fields(grid, {"a": x, "b": 3 * x, "c": 0 * x})
    assert len({ax.collections[0].get_clim() for ax in maps(figure)}) == 1
    assert len(figure.axes) - len(maps(figure)) == 1


def test_one_map_per_date_from_the_first_to_the_last(dated, generator):
    x = states(dated, generator)
    axes = maps(plots.field(dated, x, slices=3))
    assert [ax.get_title() for ax in axes] == ["2012-10-22", "2012-10-26", "2012-10-30"]
    for ax, i in zip(axes, (0, 4, 8), strict=True):
        assert np.array_equal(image(ax).ravel(), dated.unflatten(x)[i].flatten().numpy())


def test_a_site_is_drawn_on_the_map_of_its_date_only(dated, generator):
    dates = np.array(["2012-10-22T06", "2012-10-26T11", "2012-10-24T00"], dtype="datetime64[s]")
    points = Points(time=dates, lat=[35.0, 36.0, 37.0], lon=[300.0, -59.0, 299.0])
    axes = maps(plots.field(dated, states(dated, generator), points=points, slices=3))
    assert [len(ax.collections[1].get_offsets()) for ax in axes] == [1, 1, 0]


def test_time_and_one_axis_of_space_make_one_map(generator):
    grid = Grid(time=np.arange(6.0), x=np.arange(4.0))
    x = states(grid, generator)
    (ax,) = maps(plots.field(grid, x))
    assert np.array_equal(image(ax).ravel(), x.numpy())


def test_a_line_is_drawn_against_its_axis(generator):
    grid = Grid(x=np.arange(7.0))
    x = states(grid, generator)
    (ax,) = plots.fields(grid, {"mean": x, "member 1": -x}).axes
    assert np.array_equal(ax.lines[0].get_xydata(), np.stack([np.arange(7.0), x.numpy()], -1))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["mean", "member 1"]


def test_units_are_on_the_colour_bar(grid, generator):
    figure = plots.field(grid, states(grid, generator), units="m")
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert [bar.get_ylabel() for bar in bars] == ["m"]


def test_a_given_axis_is_drawn_on(grid, generator):
    figure = Figure()
    left, _ = figure.subplots(1, 2)
    assert plots.field(grid, states(grid, generator), ax=left) is figure
    assert image(left).size == len(grid)


def test_the_posterior_shows_the_truth_beside_the_mean(sea, generator):
    x, members = states(sea, generator), states(sea, generator, (5,))
    first, second = plots.posterior(sea, x, x.abs(), members, truth=x, units="m")
    titles = [ax.get_title() for ax in maps(first)]
    assert titles == ["truth", "mean", "member 1", "member 2"]
    assert np.array_equal(image(maps(second)[0]).compressed(), x.abs().numpy())


def test_residuals_keep_every_datum(grid, generator):
    values = torch.randn(50, generator=generator, dtype=F64)
    values[0] = 40.0  # an outlier falls in the last bar
    points = Points(lat=torch.full((50,), 35.0, dtype=F64), lon=torch.linspace(296, 304, 50))
    left, right, _ = plots.residuals(grid, points, values, std=1.0, units="m").axes
    area = sum(bar.get_height() * bar.get_width() for bar in left.patches)
    assert area == pytest.approx(1.0, rel=1e-9)
    assert len(right.collections[0].get_offsets()) == 50


def test_bars_are_counts_over_their_expectation():
    counts = torch.tensor([4, 8, 0, 12])
    (ax,) = plots.ranks(counts).axes
    heights = [bar.get_height() for bar in ax.patches[:4]]
    assert heights == pytest.approx((counts.double() / 6.0).tolist(), rel=1e-12)
    (ax,) = plots.pit(torch.tensor([0.1, 0.1, 0.6, 1.0]), bins=2).axes
    assert [bar.get_height() for bar in ax.patches[:2]] == pytest.approx([1.0, 1.0], rel=1e-12)


def test_the_band_of_a_histogram_holds_most_bars_of_uniform_data(generator):
    # 100 histograms of 20 bars: the share outside is 5 % within 5 standard errors.
    outside = []
    for _ in range(100):
        (ax,) = plots.pit(torch.rand(2000, generator=generator), bins=20).axes
        band = ax.patches[20].get_bbox()
        outside += [not band.y0 <= bar.get_height() <= band.y1 for bar in ax.patches[:20]]
    se = math.sqrt(0.05 * 0.95 / len(outside))
    assert abs(np.mean(outside) - 0.05) < 5 * se


def test_curves_are_the_ones_given():
    levels, inside = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.1, 0.6, 0.8])
    (ax,) = plots.coverage(levels, inside).axes
    assert np.allclose(ax.lines[1].get_xydata(), torch.stack([levels, inside], -1))
    (ax,) = plots.spread_skill(levels, inside, units="m").axes
    assert np.allclose(ax.lines[1].get_xydata(), torch.stack([levels, inside], -1))


def test_calibration_has_a_panel_per_statistic():
    levels = torch.tensor([0.2, 0.5, 0.9])
    pair = (levels, levels)
    counts = torch.tensor([1, 2])
    full = plots.calibration(pit=levels, coverage=pair, ranks=counts, spread_skill=pair)
    assert len(full.axes) == 4
    assert len(plots.calibration(ranks=counts).axes) == 1


def test_a_variogram_draws_each_direction_and_the_model():
    h = torch.linspace(1.0, 10.0, 5)
    gammas = {"0°": 1 - torch.exp(-h), "90°": 1 - torch.exp(-h / 2)}
    figure = plots.variogram(h, gammas, count=torch.arange(1, 6), model=lambda d: d / 10)
    (ax,) = figure.axes
    for drawn, gamma in zip(ax.collections, gammas.values(), strict=True):
        assert np.allclose(drawn.get_offsets(), torch.stack([h, gamma], -1))
    x, y = ax.lines[0].get_data()
    assert np.allclose(y, x / 10)


def test_labels_do_not_overlap(sea, dated, generator):
    x, t = states(sea, generator), states(dated, generator)
    plane = Grid(x=np.arange(0.0, 3000.0, 200.0), y=np.arange(0.0, 4000.0, 200.0))
    z = states(plane, generator)
    levels = torch.linspace(0.05, 0.95, 19)
    pair = (levels, levels)
    figures = [
        plots.field(sea, x, title="Sea surface height", units="m"),
        plots.field(dated, t, title="Sea surface height", units="m"),
        plots.fields(dated, {"truth": t, "mean": t}, units="m"),
        plots.fields(plane, {f"member {i}": z for i in range(5)}, units="log ppm"),
        plots.calibration(pit=levels, coverage=pair, ranks=levels.long(), spread_skill=pair),
    ]
    assert [overlaps(figure) for figure in figures] == [[]] * len(figures)


def test_no_window_is_kept_open(grid, generator):
    before = plt.get_fignums()
    render(plots.field(grid, states(grid, generator)))
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda g: plots.field(g, torch.zeros(3, dtype=F64)), r"shape \(400,\).*got \(3,\)"),
        (lambda g: plots.fields(g, {}), "at least one field, got none"),
        (lambda g: plots.pit(torch.tensor([0.5, 1.5])), "between 0 and 1, got 0.5 to 1.5"),
        (lambda g: plots.pit(torch.tensor([torch.nan])), "between 0 and 1"),
        (lambda g: plots.calibration(), "at least one statistic"),
    ],
)
def test_wrong_input_is_refused(grid, call, match):
    with pytest.raises(ValueError, match=match):
        call(grid)


def sites(grid):
    return grid.points[torch.arange(0, len(grid), 7)]


def squares(points, first=60e3, second=20e3, turn=30.0):
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    R = torch.tensor([[c, -s], [s, c]], dtype=F64)
    return (R @ torch.diag(torch.tensor([first**2, second**2], dtype=F64)) @ R.mT).expand(
        len(points), 2, 2
    )


def test_an_ellipse_has_the_half_axes_of_its_matrix(sea):
    points = sites(sea)
    figure = render(plots.ellipses(sea, points, squares(points)))
    (ax,) = maps(figure)
    drawn = [c for c in ax.collections if len(c.get_paths()) == len(points)][-1]
    metres = math.radians(1.0) * EARTH_RADIUS
    reach = []
    for path, lat, lon in zip(
        drawn.get_paths(), points.axis("lat"), points.axis("lon"), strict=True
    ):
        x, y = path.vertices.T
        north = (y - lat.item()) * metres
        east = (x - lon.item()) * metres * math.cos(math.radians(lat.item()))
        distance = np.hypot(north, east)
        reach.append((distance.max(), distance.min()))
    # 49 points on the rim: the longest is within 1 % of the half axis; all share one factor
    ratio = np.array(reach)[:, 0] / np.array(reach)[:, 1]
    np.testing.assert_allclose(ratio, 3.0, rtol=0.05)
    np.testing.assert_allclose(np.array(reach)[:, 0], reach[0][0], rtol=0.01)
    np.testing.assert_allclose(drawn.get_array(), math.sqrt(60 * 20), rtol=1e-9)
    assert any(t.get_text().endswith("km") for t in ax.texts)


def test_arrows_point_where_the_velocity_goes(sea):
    points = sites(sea)
    v = torch.tensor([0.3, -0.4], dtype=F64).expand(len(points), 2)
    figure = render(plots.arrows(sea, points, v))
    (ax,) = maps(figure)
    (quiver,) = [c for c in ax.collections if hasattr(c, "U")]
    assert np.allclose(quiver.U, -0.4)  # the second axis is drawn to the right
    assert np.allclose(quiver.V, 0.3)
    assert np.allclose(quiver.get_array(), 0.5)


def test_land_is_grey_under_symbols(sea):
    points = sites(sea)
    (ax,) = maps(plots.ellipses(sea, points, squares(points)))
    assert np.array_equal(image(ax).reshape(sea.shape).mask.ravel(), ~sea.mask.numpy())


def test_parameters_are_drawn_by_their_shape(dated, generator):
    points = Points(lat=[35.0, 38.0], lon=[297.0, 300.0])
    fields = {
        "lengthscale": squares(points),
        "velocity": torch.ones(2, 2, dtype=F64),
        "variance": states(dated, generator).exp(),
    }
    made = plots.parameters(dated, points, fields, units={"variance": "m2"})
    assert list(made) == list(fields)
    for figure in made.values():
        render(figure)


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda g, p: plots.ellipses(g, p, torch.zeros(len(p), 2, 2)), "positive definite"),
        (lambda g, p: plots.ellipses(g, p, torch.ones(3, 2, 2)), "at each of"),
        (lambda g, p: plots.arrows(g, p, torch.full((len(p), 2), math.nan)), "finite values"),
        (lambda g, p: plots.parameters(g, p, {"tau": torch.ones(3)}), "state with shape"),
    ],
)
def test_parameters_of_another_shape_are_refused(grid, draw, match):
    with pytest.raises(ValueError, match=match):
        draw(grid, sites(grid))
