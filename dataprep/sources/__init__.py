"""Sources: one file for each kind of input, which lists source videos and opens them."""
