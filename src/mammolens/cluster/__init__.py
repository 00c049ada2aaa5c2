"""More than one machine: what the rooms do, spread by Ray. No other room imports it.

Raises:
    MissingExtra: Ray is not installed.
"""

from mammolens.errors import require

require("ray", extra="cluster")
