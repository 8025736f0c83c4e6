"""Keeps what libraries log of the addresses that they go to out of the log: passwords and tokens are in them."""

import logging


def hush(*names: str) -> None:
    """Nothing of these loggers, and of those below them, is written, whatever levels are configured."""
    for name in names:
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            # Without any, Python writes warnings to stderr.
            logger.addHandler(logging.NullHandler())
