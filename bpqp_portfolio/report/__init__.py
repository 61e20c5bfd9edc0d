"""The report of one run: saved results, the summary table, figures and the HTML page."""
