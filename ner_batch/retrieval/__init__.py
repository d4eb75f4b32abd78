"""Demonstrations: gold examples like the text at hand, out of an index built beforehand.

Ye et al. (2024) and GPT-NER (Wang et al., 2025) put the training sentences nearest to the input into the prompt.
:func:`build` writes an index, a folder; :func:`open_index` opens it; :meth:`Index.nearest` finds demonstrations.
"""

from ner_batch.retrieval.index import ENCODED, KINDS, MANIFEST, Index, IndexManifest, build, nearest, open_index

__all__ = ["ENCODED", "KINDS", "MANIFEST", "Index", "IndexManifest", "build", "nearest", "open_index"]
