"""Benchmarks of epsot, run by asv; see the README beside this folder."""
