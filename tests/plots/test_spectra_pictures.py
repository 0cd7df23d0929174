"""Laws of the pictures of scores by scale and in time: read back, they are the numbers given."""

import matplotlib.dates as mdates
import numpy as np
import pytest

from matheron import plots
from matheron.metrics.spectral import Field, first_contour, largest_component, spectral_score
from matheron.metrics.spectral.psd import Plane

F_TIME, F_LON = np.arange(1, 30) / 60, np.arange(1, 25) / 10


def plane(scale=1.0):
    return F_TIME, F_LON, 1 - (scale * F_TIME[:, None] * 8) ** 2 - (scale * F_LON) ** 2


def maps(figure):
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>" and ax.get_visible()]


def refused(call, part):
    with pytest.raises(ValueError, match=part) as found:
        call()
    assert "\n" not in str(found.value)


def test_the_plane_holds_the_scores_between_wavelengths_and_periods():
    figure = plots.score_plane(plane())
    (ax,) = maps(figure)
    mesh = ax.collections[0]
    assert np.array_equal(mesh.get_array(), plane()[2])
    assert mesh.get_clim() == (0.0, 1.0)
    corners = mesh.get_coordinates()
    x, y = corners[0, :, 0], corners[:, 0, 1]
    assert ((x[:-1] > 1 / F_LON) & (x[1:] < 1 / F_LON)).all()
    assert ((y[:-1] > 1 / F_TIME) & (y[1:] < 1 / F_TIME)).all()
    assert figure.axes[-1].get_ylabel() == "score"


def test_large_scales_are_at_the_bottom_left_of_logarithmic_axes():
    (ax,) = maps(plots.score_plane(plane()))
    assert ax.get_xlim()[0] > ax.get_xlim()[1]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("wavelength [deg]", "period [days]")


def test_the_line_is_where_the_score_is_one_half():
    (ax,) = maps(plots.score_plane(plane()))
    vertices = np.concatenate([p.vertices for p in ax.collections[1].get_paths()])
    legacy = first_contour(Plane(*plane()))
    assert np.allclose(vertices.min(axis=0), legacy, rtol=1e-9)


def test_no_line_is_drawn_where_the_score_never_crosses():
    for value in (0.9, 0.1, np.nan):
        (ax,) = maps(plots.score_plane((F_TIME, F_LON, np.full((29, 24), value))))
        assert len(ax.collections) == 1
    (ax,) = maps(plots.score_plane((F_TIME[:1], F_LON, np.linspace(1, 0, 24)[None])))
    assert len(ax.collections) == 1


def test_marks_stand_at_the_readings_and_what_is_not_finite_is_said():
    readings = {"odc2020a": (1.5, 12.0), "robust": (np.inf, np.nan)}
    (ax,) = maps(plots.score_plane(plane(), readings=readings))
    (mark,) = ax.get_lines()
    assert mark.get_xydata().tolist() == [[1.5, 12.0]]
    told = [t.get_text() for t in ax.get_legend().get_texts()]
    assert told == ["odc2020a: 1.5 deg, 12 days", "robust: unresolved, undefined"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_methods_stand_side_by_side_on_one_scale(count, trouble):
    planes = {f"method {k}": plane(1 + 0.2 * k) for k in range(count)}
    readings = {k: {"odc2020a": (1.5, 12.0), "robust": (1.6, 13.0)} for k in planes}
    figure = plots.score_plane(planes, readings=readings)
    axes = maps(figure)
    assert [ax.get_title() for ax in axes] == list(planes)
    for ax, given in zip(axes, planes.values(), strict=True):
        assert np.array_equal(ax.collections[0].get_array(), given[2])
        assert ax.get_xlim() == axes[0].get_xlim()
        assert len(ax.get_lines()) == 2
    assert not trouble(figure)


def test_scores_of_the_metrics_are_drawn_as_they_come():
    rng = np.random.default_rng(0)
    days = np.datetime64("2012-10-22") + np.arange(24)
    axes = (days, np.arange(33, 37.0), np.arange(-65, -45.0))
    true = Field(rng.standard_normal((24, 4, 20)), *axes)
    made = Field(0.9 * true.values, *axes)
    score = spectral_score(made, true)
    marks = {"odc2020a": first_contour(score), "robust": largest_component(score)}
    figure = plots.score_plane({"OI": score}, readings={"OI": marks})
    assert np.array_equal(maps(figure)[0].collections[0].get_array(), score.power)


K = np.arange(40) / 1000
DATA = (K, 1 / (1 + (K * 200) ** 4))


def spectra(scale):
    return (K, DATA[1] * (K * scale) ** 2)


def test_tracks_draw_spectra_and_their_score_but_for_the_frequency_zero():
    figure = plots.track_spectra(DATA, {"OI": DATA}, {"OI": spectra(90), "SPDE": spectra(60)})
    left, right = figure.axes
    data, made, *errors = left.get_lines()
    assert np.allclose(data.get_xydata(), np.stack([1 / K[1:], DATA[1][1:]], 1), rtol=1e-12)
    assert np.array_equal(made.get_ydata(), DATA[1][1:])
    scores = right.get_lines()[:2]
    for error, score, scale in zip(errors, scores, (90, 60), strict=True):
        assert np.array_equal(error.get_ydata(), spectra(scale)[1][1:])
        assert np.allclose(score.get_ydata(), 1 - (K[1:] * scale) ** 2, rtol=1e-12)
        assert score.get_color() == error.get_color()
        assert score.get_linestyle() == error.get_linestyle()
    assert right.get_lines()[2].get_ydata() == [0.5, 0.5]
    assert left.get_xlim()[0] > left.get_xlim()[1]
    assert left.get_ylabel() == "spectrum [m²/cpkm]"


def test_readings_of_tracks_stand_on_the_line():
    errors = {"OI": spectra(90), "SPDE": spectra(60)}
    right = plots.track_spectra(DATA, {}, errors, readings={"OI": 127.3, "SPDE": np.inf}).axes[1]
    marks = [x for x in right.get_lines() if x.get_marker() == "o"]
    assert [m.get_xydata().tolist() for m in marks] == [[[127.3, 0.5]]]
    told = [t.get_text() for t in right.get_legend().get_texts()]
    assert told == ["OI: 127 km", "SPDE: unresolved"]


def test_lines_differ_by_colour_and_by_stroke():
    errors = {f"m{k}": spectra(40 + k) for k in range(5)}
    lines = plots.track_spectra(DATA, {}, errors).axes[1].get_lines()[:5]
    assert len({x.get_color() for x in lines}) == 5
    assert len({str(x._dash_pattern) for x in lines}) == 5


DAYS = np.datetime64("2012-10-22", "ns") + np.arange(20) * np.timedelta64(1, "D")


def test_a_score_in_time_is_drawn_with_its_band_and_its_data():
    score, count = np.linspace(0.1, 0.2, 20), np.arange(20.0)
    band = {"OI": (score - 0.01, score + 0.02)}
    figure = plots.rmse_in_time(DAYS, {"OI": score}, bands=band, count=count)
    top, bottom = figure.axes
    (line,) = top.get_lines()
    assert np.array_equal(line.get_ydata(), score)
    assert np.array_equal(mdates.date2num(line.get_xdata()), mdates.date2num(DAYS))
    box = top.collections[0].get_paths()[0].vertices
    assert box[:, 1].min() == pytest.approx(0.09, rel=1e-12)
    assert box[:, 1].max() == pytest.approx(0.22, rel=1e-12)
    assert [p.get_height() for p in bottom.patches] == count.tolist()
    assert (top.get_ylabel(), bottom.get_ylabel()) == ("RMSE [m]", "data")


def test_lines_break_where_dates_or_scores_are_lacking():
    kept = np.delete(np.arange(20), slice(8, 12))
    score = np.linspace(0.1, 0.2, 20)
    score[3] = np.nan
    (line,) = plots.rmse_in_time(DAYS[kept], {"OI": score[kept]}).axes[0].get_lines()
    y = np.asarray(line.get_ydata())
    assert np.isnan(y).nonzero()[0].tolist() == [3, 8]
    assert np.array_equal(y[~np.isnan(y)], score[kept][~np.isnan(score[kept])])


def test_one_date_or_numbers_for_dates_will_do():
    assert plots.rmse_in_time(DAYS[:1], {"OI": np.ones(1)}, count=np.ones(1)).axes
    figure = plots.rmse_in_time(np.arange(3.0), {"OI": np.ones(3)}, label="µ", units="")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("time", "µ")


def test_no_label_collides_or_is_cut(trouble):
    errors = {k: spectra(s) for k, s in (("OI", 90), ("MIOST", 70), ("SPDE", 60))}
    readings = dict.fromkeys(errors, 100.0)
    assert not trouble(plots.track_spectra(DATA, errors, errors, readings=readings))
    score = {k: np.linspace(0.1, 0.2, 20) for k in errors}
    assert not trouble(plots.rmse_in_time(DAYS, score, count=np.full(20, 2000.0)))


def test_bad_planes_are_refused_in_one_line():
    t, x, s = plane()
    refused(lambda: plots.score_plane({}), "expected one method or more, got none")
    refused(lambda: plots.score_plane((t, x, s.T)), r"scores=\.\.\.\): expected as many frequen")
    refused(lambda: plots.score_plane({"OI": (t, x)}), r"scores\['OI'\]=.*got 2 arrays")
    refused(lambda: plots.score_plane((t - t[0], x, s)), "expected increasing frequencies > 0")
    refused(lambda: plots.score_plane((t, x[::-1], s)), "expected increasing frequencies > 0")
    marks = {"robust": {"OI": (1.0, 2.0)}}
    refused(
        lambda: plots.score_plane({"OI": plane()}, readings=marks), "methods among OI, got rob"
    )


def test_bad_spectra_are_refused_in_one_line():
    draw = plots.track_spectra
    refused(lambda: draw(DATA, {}, {}), "expected one error or more, got none")
    short = (K[:-1], DATA[1][:-1])
    refused(lambda: draw(DATA, {}, {"OI": short}), "expected the frequencies of the reference")
    refused(lambda: draw(DATA, {"OI": (K, short[1])}, {"OI": DATA}), "expected two vectors of one")
    refused(lambda: draw(DATA, {}, {"OI": DATA}, readings={"X": 1.0}), "names among OI, got X")


def test_bad_series_are_refused_in_one_line():
    draw, score = plots.rmse_in_time, np.ones(20)
    refused(lambda: draw(DAYS, {}), "expected one score or more, got none")
    refused(lambda: draw(DAYS[::-1], {"OI": score}), "expected increasing dates")
    refused(lambda: draw(DAYS, {"OI": score}, bands={"X": (score, score)}), "among OI, got X")
    for more in ({"count": np.ones(3)}, {"bands": {"OI": (score, np.ones(3))}}):
        with pytest.raises(Exception, match=r"shape|dim|axis|check"):
            draw(DAYS, {"OI": score}, **more)
