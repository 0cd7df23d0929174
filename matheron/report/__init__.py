r"""One page about a map: where it comes from, pictures, and scores where a truth is known.

The page is a single HTML file that needs no network: it can be sent by mail or kept with the
data it describes.
"""

__all__ = ["report"]

from .build import report
