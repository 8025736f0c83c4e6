"""Who wastes which GPU: samples are scored, judged by rules that explain themselves, and kept for a while."""
