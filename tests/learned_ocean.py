"""A tiny experiment with another ocean to train on, and solvers that learned a little on it."""

import functools
import tempfile

from pathlib import Path

from matheron.compare import Course, Plan, course_of, learn
from matheron.osse import Experiment

TINY = {
    "window": 5,
    "step": 0.5,
    "patch": 16,
    "width": 8,
    "iterations": 2,
    "updates": 12,
    "first": "none",
}


def _made(**also) -> Experiment:
    size = {"days": 8, "size": 32, "spacing": 0.5, "spin_up": 60}
    return Experiment.make("gulfstream", "4nadirs", **size, train=True, cache=False, **also)


@functools.cache
def ocean() -> Experiment:
    return _made()


@functools.cache
def _parent() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def trained(method: str) -> Path:
    """Returns the folder of a model that learned for a second or two."""
    folder = Path(_parent().name) / method
    learn(course(method), folder, command="a test")
    return folder


@functools.cache
def course(method: str, **settings) -> Course:
    """Returns the tiny ocean to train on."""
    return course_of(ocean(), Plan(method, **{**TINY, **settings}), lambda _: None)


@functools.cache
def warm_ocean() -> Experiment:
    """The same ocean, with a temperature beside the heights."""
    return _made(sst=True)


@functools.cache
def warm_course(method: str = "unet", **settings) -> Course:
    """Returns the ocean to train on with its temperature."""
    plan = Plan(method, **{**TINY, "covariates": ("sst",), **settings})
    return course_of(warm_ocean(), plan, lambda _: None)


@functools.cache
def trained_with_sst(method: str = "unet") -> Path:
    """Returns the folder of a model that learned for a second or two with temperatures."""
    folder = Path(_parent().name) / f"{method}-sst"
    learn(warm_course(method), folder, command="a test")
    return folder
