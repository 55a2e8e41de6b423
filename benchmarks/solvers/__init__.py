"""Solvers against each other and against peers, on one list of problems."""
