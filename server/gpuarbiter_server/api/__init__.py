"""gRPC: the contract on one side, events and effects of the core on the other."""
