"""Reports: computed results in, tables, figures and self-contained pages out; no torch."""
