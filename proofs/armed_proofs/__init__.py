"""Proofs about the model, for any number of slots and children, and refutations with a run."""
