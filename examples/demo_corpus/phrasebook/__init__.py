"""Words, clauses and sentence patterns in English and German: what `data.grammar` draws the demo's sentences from."""
