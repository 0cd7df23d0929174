r"""Choosing the structure of a prior: scales, smoothness, anisotropy, trend.

Candidates are fitted by maximum likelihood on a sample of the data, and judged by how well they
predict *blocks* of data held out, as wide as the gaps that are to be mapped. What is to be mapped
itself is never seen.
"""

__all__ = ["Choice", "candidates", "choose", "choose_markov", "instruments"]

from .choice import Choice, instruments
from .choosing import choose
from .markov import choose_markov
from .structures import candidates
