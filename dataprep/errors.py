"""How `cwm-dataprep` ends, for the scripts and batch systems that call it."""

EXIT_DONE = 0
EXIT_INPUT = 1
"""Wrong usage, or an input or output that cannot be worked with."""
EXIT_FAILURES = 2
"""The set is written, and more videos failed than `--max-failures`."""
EXIT_VERIFY = 3
"""A shard directory is not what its manifest says."""
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """Something the user gave cannot be worked with; the message is one sentence."""
