r"""How threads wait, said before torch starts any."""

import os

# Small tensor operations and our own pool of threads take turns: a waiting OpenMP thread that
# spins would hold the core that the pool needs (10 ms a turn, measured on two busy cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
