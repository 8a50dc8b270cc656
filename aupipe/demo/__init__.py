"""A small labelled corpus of talking faces in the layout of Aff-Wild2, drawn by code: nothing is downloaded.

The faces are drawings with parameters. Action units are inputs of the drawing, not estimates, so the labels are exact.
Scores on this corpus show that a pipeline works; they say nothing about real faces.
"""

from aupipe.demo.corpus import DemoCorpus, draw_corpus

__all__ = ["DemoCorpus", "draw_corpus"]
