"""Accuracy against time of epsot and its peers on the same problems; see the README of this folder."""
