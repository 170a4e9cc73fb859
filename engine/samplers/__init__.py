"""Samplers as coefficient tables: a pure function from a schedule to numbers, and one loop for all."""
