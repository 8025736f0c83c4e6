"""A crowd on simulated GPUs: what the console is looked at and measured with."""
