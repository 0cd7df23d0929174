r"""The command line: ``matheron demo | info | fit | map | score | report``."""

__all__ = ["app", "main"]

from .app import app, main
