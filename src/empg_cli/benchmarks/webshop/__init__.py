"""WebShop (Yao et al. 2022, arXiv 2207.01206), re-implemented without Java, spaCy, server or download.

Search results, goals, rewards and page texts equal the official environment's (see docs/benchmarks.md for how that was
checked).
"""
