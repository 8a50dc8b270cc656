"""Faults that spoil a data set, found in the store and the annotations, without pictures."""
