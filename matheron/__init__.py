r"""Reconstruct geophysical fields from sparse, noisy, gappy observations.

One sentence carries the design: ``posterior = solver(prior, observation)(y)``.
"""

__version__ = "0.1.0"

from . import _threads as _threads  # before torch
from . import data as data
from . import dynamics as dynamics
from . import fit as fit
from . import kernels as kernels
from . import mappers as mappers
from . import metrics as metrics
from . import nets as nets
from . import observations as observations
from . import osse as osse
from . import priors as priors
from . import solvers as solvers
from . import testing as testing
from .domain import Grid as Grid
from .domain import Points as Points
from .kernels import Deformed as Deformed
from .kernels import Gaussian as Gaussian
from .kernels import Gneiting as Gneiting
from .kernels import Matern as Matern
from .kernels import Nugget as Nugget
from .kernels import PaciorekSchervish as PaciorekSchervish
from .kernels import Periodic as Periodic
from .kernels import Wendland as Wendland
from .kernels import separable as separable
from .kernels import sum_metric as sum_metric
from .observations import GriddedObservation as GriddedObservation
from .observations import MatrixObservation as MatrixObservation
from .observations import NonlinearObservation as NonlinearObservation
from .observations import PointObservation as PointObservation
from .observations import Stack as Stack
from .posterior import Posterior as Posterior
from .priors import EOF as EOF
from .priors import AdvectionDiffusion as AdvectionDiffusion
from .priors import AlongTrackError as AlongTrackError
from .priors import GaussianProcess as GaussianProcess
from .priors import LagrangianProcess as LagrangianProcess
from .priors import MarkovSum as MarkovSum
from .priors import NonlinearSPDE as NonlinearSPDE
from .priors import Projection as Projection
from .priors import StrongConstraint as StrongConstraint
from .priors import WavePackets as WavePackets
from .priors import WeakConstraint as WeakConstraint
from .priors import WhittleMatern as WhittleMatern
from .reconstruct import reconstruct as reconstruct
from .solvers import DINEOF as DINEOF
from .solvers import ConjugateGradient as ConjugateGradient
from .solvers import DirectInversion as DirectInversion
from .solvers import EnsembleKalman as EnsembleKalman
from .solvers import ExpansionGradient as ExpansionGradient
from .solvers import FixedPoint as FixedPoint
from .solvers import InducingPoints as InducingPoints
from .solvers import IterativeEnsembleKalman as IterativeEnsembleKalman
from .solvers import Kriging as Kriging
from .solvers import Langevin as Langevin
from .solvers import LocalKriging as LocalKriging
from .solvers import NeuralVariational as NeuralVariational
from .solvers import ParticleFilter as ParticleFilter
from .solvers import SparseCholesky as SparseCholesky
from .solvers import Taper as Taper
from .solvers import UnrolledDescent as UnrolledDescent
from .solvers import Variational as Variational
from .solvers import Vecchia as Vecchia
from .variogram import variogram as variogram
