"""Words, clauses and sentence patterns in English and German, from which ``grammar`` draws sentences."""
