"""Arrays: dtypes, where arrays lie, working memory, threads."""
