"""Benchmarks: each compares the library with what it should keep up with, in the same run."""
