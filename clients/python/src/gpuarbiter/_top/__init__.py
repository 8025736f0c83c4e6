"""The live view of an arbiter: frames of text, made from its snapshots."""
