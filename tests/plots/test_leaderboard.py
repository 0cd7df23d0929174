"""Laws of the leaderboard: a dot per number, the best of these data, others told apart."""

import numpy as np
import pandas as pd
import pytest

from matheron import plots
from matheron.metrics.spectral import published
from matheron.plots.leaderboard import BEST, OTHER


@pytest.fixture
def table():
    rows = {
        "mu": [0.90, 0.92, 0.93, 0.95],
        "lambda_x": [1.42, 1.3, np.inf, 0.82],
        "lambda_t": [12.0, 11.0, 10.5, 5.84],
        "rmse": [0.07, 0.06, 0.055, np.nan],
        "crps": [0.04, 0.035, 0.03, np.nan],
        "coverage": [0.7, 0.88, 0.99, np.nan],
        "seconds": [12.0, 300.0, 4000.0, np.nan],
        "published": [False, False, False, True],
    }
    return pd.DataFrame(rows, index=["optimal interpolation", "MIOST", "SPDE", "4DVarQG"])


def dots(ax):
    """The value, the colour and the marker of each dot, by row."""
    found = [x for x in ax.get_lines() if x.get_linestyle() == "None"]
    return {int(x.get_ydata()[0]): x for x in found}


def test_every_finite_score_has_its_dot(table):
    figure = plots.leaderboard(table)
    names = [k for k in table.columns if k != "published"]
    assert len(figure.axes) == len(names)
    for ax, name in zip(figure.axes, names, strict=True):
        values = table[name].to_numpy()
        expected = {i: v for i, v in enumerate(values) if np.isfinite(v)}
        assert {k: x.get_xdata()[0] for k, x in dots(ax).items()} == expected
        low, high = ax.get_xlim()
        assert all(low < v < high for v in expected.values())


def test_numbers_are_written_those_that_are_not_finite_too(table):
    by_title = {ax.get_title(): ax for ax in plots.leaderboard(table).axes}
    told = [t.get_text() for t in by_title["λx [deg] ↓"].texts]
    assert told == ["1.42", "1.30", "inf", "0.820"]
    assert [t.get_text() for t in by_title["time [s] ↓"].texts] == ["12.0", "300", "4000", "–"]


def test_the_best_is_that_of_these_data(table):
    best = {"mu": 2, "lambda_x": 1, "lambda_t": 2, "rmse": 2, "crps": 2, "coverage": 1}
    best["seconds"] = 0
    for ax, row in zip(plots.leaderboard(table).axes, best.values(), strict=True):
        found = {k for k, x in dots(ax).items() if x.get_color() == BEST}
        assert found == {row}
        assert dots(ax)[row].get_marker() == "D"  # told apart in grey, too


def test_one_method_alone_is_not_the_best(table):
    for ax in plots.leaderboard(table.iloc[[0, 3]]).axes:
        assert not {k for k, x in dots(ax).items() if x.get_color() == BEST}


def test_published_rows_are_grey_hollow_and_flagged(table):
    figure = plots.leaderboard(table)
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert names == ["optimal interpolation", "MIOST", "SPDE", "4DVarQG (other data)"]
    dot = dots(figure.axes[0])[3]
    assert (dot.get_color(), dot.get_markerfacecolor()) == (OTHER, "w")


def test_the_first_row_is_at_the_top(table):
    low, high = plots.leaderboard(table).axes[0].get_ylim()
    assert low > high


def test_the_nominal_coverage_is_a_line(table):
    ax = plots.leaderboard(table, nominal=0.95).axes[5]
    lines = [x for x in ax.get_lines() if x.get_linestyle() == "--"]
    assert [x.get_xdata()[0] for x in lines] == [0.95]
    low, high = ax.get_xlim()
    assert low < 0.95 < high
    assert dots(ax)[2].get_color() == BEST  # the nearest to it
    assert max(ax.get_xticks()) <= 1


def test_columns_without_a_number_are_left_out_and_others_chosen(table):
    bare = table.assign(crps=np.nan, note="x")
    assert len(plots.leaderboard(bare).axes) == 6
    titles = [ax.get_title() for ax in plots.leaderboard(table, columns=["rmse", "mu"]).axes]
    assert titles == ["RMSE [m] ↓", "µ ↑"]
    (ax,) = plots.leaderboard(table, columns=["lambda_x"], units={"lambda_x": "km"}).axes
    assert ax.get_title() == "λx [km] ↓"


def test_published_scores_are_drawn_beside_ours(table, trouble):
    rows = [r for r in published("odc2020a") if r.setting == "4 nadirs"]
    rows = [r for r in rows if r.generation == "current"]
    theirs = pd.DataFrame([dict(r.values) for r in rows], index=[r.method for r in rows])
    both = pd.concat([table.iloc[:3], theirs.assign(published=True)])
    figure = plots.leaderboard(both, title="4 nadirs")
    told = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert sum("other data" in t for t in told) == len(rows)
    assert not trouble(figure)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_no_label_collides_or_is_cut(table, trouble, count):
    assert not trouble(plots.leaderboard(table.iloc[:count]))
    assert not trouble(plots.leaderboard(table.iloc[:count], columns=["mu"], title="OSSE"))


def test_scores_that_are_all_alike_or_not_finite_are_drawn(table, trouble):
    assert not trouble(plots.leaderboard(table.assign(mu=0.9, rmse=0.0, lambda_x=np.inf)))


def test_bad_tables_are_refused_in_one_line(table):
    for bad in (table.iloc[:0], table[["published"]], table.rename(columns=str.upper)):
        with pytest.raises(ValueError, match=r"leaderboard\(table=\.\.\.\): expected meth") as e:
            plots.leaderboard(bad)
        assert "\n" not in str(e.value)
    for name in ("heat", "published"):
        with pytest.raises(ValueError, match=rf"columns=\.\.\.\).*got '{name}'"):
            plots.leaderboard(table, columns=[name])
