"""The composition root: builds every room, connects them, and takes them down in order."""

from gpuarbiter_server.app.listening import Addresses
from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.app.serving import serve

__all__ = ["Addresses", "StartError", "serve"]
