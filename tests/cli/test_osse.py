"""Experiments on the command line: made, described, refused in one line, whole or not at all."""

import json
import pytest
import shlex
import xarray as xr

SMALL = ("--days", 3, "--size", 16)


@pytest.fixture(scope="module")
def spun_up(tmp_path_factory):
    """A cache of these tests' own, so that each ocean is spun up once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def lab(spun_up, tmp_path, monkeypatch):
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(spun_up))
    return tmp_path


def done(ran):
    assert ran.code == 0, ran.err
    return ran


def refused(ran, *words):
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def test_a_command_makes_an_experiment(lab, cli):
    from matheron.osse import Experiment

    ran = done(
        cli("osse", *SMALL, "--constellation", "1nadir,swot", "--noise", "karin", "--train")
    )
    found = Experiment.load("osse")
    assert ran.out.rstrip("\n") == found.summary
    assert "2012-10-02 to 2012-10-03 are scored" in ran.out
    assert list(found.observations) == ["jason1", "nadir_swot", "karin_swot"]
    assert (found.days, found.recipe.noise, found.seed) == (3, "karin", 0)
    assert found.training is not None
    assert ran.err.splitlines()[-1].startswith("next: matheron compare osse ")
    assert "%" not in ran.err  # no bar in a pipe
    found.close()


def test_the_same_command_makes_the_same_files(lab, cli):
    for folder in ("a", "b"):
        done(cli("osse", *SMALL, "--noise", "white", "--seed", 5, "-o", folder))
    told = [json.loads((lab / folder / "osse.json").read_text()) for folder in ("a", "b")]
    assert told[0] == told[1]
    for name in told[0]["files"]:
        with xr.open_dataset(lab / "a" / name) as a, xr.open_dataset(lab / "b" / name) as b:
            xr.testing.assert_identical(a, b)


def test_sediment_has_its_own_defaults(lab, cli):
    ran = done(cli("osse", "--preset", "sediment", "--days", 2, "-o", "my coast"))
    assert {file.name for file in (lab / "my coast").iterdir()} == {
        *("truth.nc", "obs_clouds.nc", "osse.json", "README.md")
    }
    assert "of the sea is hidden" in ran.out
    assert "matheron compare 'my coast' --methods oi,dineof" in ran.err


def test_what_was_made_is_read_by_the_other_commands(lab, cli):
    done(cli("osse", *SMALL))
    ran = done(cli("info", "osse/obs_jason1.nc", "osse/truth.nc"))
    assert "ssh_model" in ran.out


def test_an_experiment_is_replaced_only_when_told(lab, cli):
    done(cli("osse", *SMALL))
    before = (lab / "osse" / "osse.json").read_text()
    refused(cli("osse", *SMALL, "--seed", 1), "--force")
    assert (lab / "osse" / "osse.json").read_text() == before
    done(cli("osse", *SMALL, "--seed", 1, "--force"))
    assert json.loads((lab / "osse" / "osse.json").read_text())["seed"] == 1
    (lab / "mine").mkdir()
    (lab / "mine" / "notes").write_text("x")
    refused(cli("osse", *SMALL, "--force", "-o", "mine"), "other files")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("--preset moon", "gulfstream"),
        ("--constellation sputnik", "sputnik"),
        ("--noise pink", "pink"),
        ("--days 0", "days"),
        ("--days 400", "63 at most"),
        ("--days two", "--days"),
        ("--seed -1", "--seed"),
        ("--seed 4294967296", "--seed"),
        ("--size 7 --days 3", "size"),
        ("--preset sediment --size 32", "size"),
        ("-o no/parent", "parent"),
        ("-o .", "got the working folder"),
    ],
)
def test_bad_calls_are_refused_in_one_line(options, word, lab, cli):
    refused(cli("osse", *shlex.split(options)), word)
    assert not (lab / "osse").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError("no space")], ids=repr)
@pytest.mark.parametrize("step", ["recipes.nature_run", "recipes.observe", "folder.json.dumps"])
def test_a_command_that_is_stopped_leaves_nothing(step, stop, lab, cli, monkeypatch):
    def stopped(*_args, **_options):
        raise stop

    monkeypatch.setattr(f"matheron.osse.{step}", stopped)
    ran = cli("osse", *SMALL)
    assert ran.code == 1
    assert not list(lab.iterdir())


def test_help_shows_an_example(lab, cli):
    ran = done(cli("osse", "--help"))
    assert "Example: matheron osse " in ran.out
