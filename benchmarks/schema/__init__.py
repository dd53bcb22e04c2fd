"""The form of results: names, checks and tables. Nothing here measures, nothing here draws."""
