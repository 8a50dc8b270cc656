"""A small labelled corpus of talking faces in the layout of Aff-Wild2, drawn by code: nothing is downloaded.

The faces are parametric drawings. Their action units are causes, not estimates, so the labels are exact. Scores on this
corpus say that a pipeline works; they say nothing about real faces.
"""

from aupipe.demo.corpus import DemoCorpus, draw_corpus

__all__ = ["DemoCorpus", "draw_corpus"]
