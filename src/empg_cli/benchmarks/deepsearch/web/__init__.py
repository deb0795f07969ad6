"""Web search engines: one `Provider` each, everything else shared (`retriever.WebRetriever`)."""
