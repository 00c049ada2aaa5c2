"""From files to pixels: reading mammograms, finding the breast, preparing it. Knows no labels and no network."""
