"""Search engines behind one async interface (`base.Retriever`)."""
