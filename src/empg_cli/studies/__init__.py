"""Studies: variants times seeds as cells, each a run of its own in the study's folder."""
