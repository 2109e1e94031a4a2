"""Recipes for scenarios, one file each: who holds which examples when, from labels and a seed alone."""
