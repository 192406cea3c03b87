"""What a user can cause and mend."""


class InputError(ValueError):
    """Something the user gave cannot be worked with; the message is one sentence."""
