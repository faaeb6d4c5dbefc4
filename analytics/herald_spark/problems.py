"""What ends a job with a message, instead of with a stack trace."""


class Problem(Exception):
    """Something that the user can mend; the text says how."""
