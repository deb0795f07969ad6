"""A deterministic multi-hop world: knowledge graph -> encyclopedia -> questions with ID and OOD splits."""
